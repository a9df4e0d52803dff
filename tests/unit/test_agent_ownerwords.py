# SPDX-License-Identifier: Apache-2.0
"""What several controllers say of a node's owner, reckoned up to one view."""

from __future__ import annotations

import pytest

from agent.ownerwords import MOST_CONTROLLERS, Owner, Words
from agent.targets import elsewhere, spread
from sdn.v1 import controller_pb2 as messages

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


def word(name: str, address: str, generation: int, *, targets: str = "", named: str = "") -> messages.Owner:
    return messages.Owner(
        controller=name,
        address=address,
        generation=generation,
        openflow_targets=targets.split(),
        controllers=named.split(),
    )


@pytest.fixture
def words() -> Words:
    return Words("node-1", [A, B])


def test_nobody_is_known_before_anybody_speaks(words: Words) -> None:
    view = words.view()
    assert (view.owner, view.answering, view.openflow_targets) == (Owner(), (), ())
    assert set(view.known) == {A, B}


def test_the_highest_generation_holds_whoever_says_it_and_in_whichever_order(words: Words) -> None:
    words.heard(A, word("a", A, 5), 0)
    words.heard(B, word("b", B, 7), 0)
    words.heard(A, word("a", A, 5), 0)
    assert words.view().owner == Owner("b", B, 7)


def test_nobody_owns_it_until_somebody_does(words: Words) -> None:
    words.heard(A, word("", "", 0), 0)
    assert words.view().owner == Owner()
    words.heard(B, word("b", B, 0), 0)
    assert words.view().owner == Owner("b", B, 0)


def test_an_owner_that_gave_it_up_is_no_owner_even_to_those_who_are_late(words: Words) -> None:
    words.heard(A, word("a", A, 5), 0)
    words.heard(A, word("", "", 6), 0)
    words.heard(B, word("a", A, 5), 0)
    assert words.view().owner == Owner("", "", 6)


def test_what_a_silent_controller_said_holds_until_others_say_otherwise(words: Words) -> None:
    words.heard(A, word("a", A, 5), 0)
    words.silent(A, 1)
    assert words.view().owner == Owner("a", A, 5)
    assert words.view().answering == ()
    words.heard(B, word("b", B, 6), 2)
    assert words.view().owner == Owner("b", B, 6)


def test_generations_go_back_only_when_nobody_has_held_to_the_higher_one_for_a_while(words: Words) -> None:
    words.heard(A, word("a", A, 50), 0)
    words.silent(A, 100)
    words.heard(B, word("b", B, 3), 102)
    assert words.view().owner.generation == 50
    words.heard(B, word("b", B, 3), 106)
    assert words.view().owner == Owner("b", B, 3)


def test_a_higher_generation_that_is_still_said_is_held_to_for_ever(words: Words) -> None:
    words.heard(A, word("a", A, 50), 0)
    words.heard(B, word("b", B, 3), 1000)
    assert words.view().owner.generation == 50


def test_those_that_are_named_are_followed_as_long_as_somebody_names_them(words: Words) -> None:
    words.heard(A, word("a", A, 1, named=f"{A} {C}"), 0)
    assert set(words.view().known) == {A, B, C}
    words.silent(A, 1)
    assert set(words.view().known) == {A, B, C}  # while nobody speaks, nobody is forgotten
    words.heard(B, word("a", A, 1, named=B), 2)
    assert set(words.view().known) == {A, B}


def test_the_owner_is_followed_even_where_nobody_names_it(words: Words) -> None:
    words.heard(A, word("c", C, 1), 0)
    assert C in words.view().known


def test_what_is_no_address_is_not_followed(words: Words) -> None:
    words.heard(A, word("c", "nonsense", 1, named="also-nonsense"), 0)
    assert set(words.view().known) == {A, B}


def test_not_more_are_followed_than_a_node_can_bear(words: Words) -> None:
    words.heard(A, word("a", A, 1, named=" ".join(f"10.1.0.{n}:1" for n in range(200))), 0)
    known = words.view().known
    assert len(known) == MOST_CONTROLLERS
    assert {A, B} <= set(known)


def test_the_owner_comes_first_among_those_that_answer(words: Words) -> None:
    for name, address in (("a", A), ("b", B), ("c", C)):
        words.heard(A, word(name, address, ord(name), named=f"{A} {B} {C}"), 0)
        words.heard(B, None, 0)
        words.heard(C, None, 0)
        assert words.view().answering[0] == address
        assert set(words.view().answering) == {A, B, C}


def test_targets_are_those_of_the_owner_while_it_speaks(words: Words) -> None:
    words.heard(B, word("a", A, 5, targets="tcp:b tcp:a"), 0)
    assert words.view().openflow_targets == ("tcp:a", "tcp:b")
    words.heard(A, word("a", A, 5, targets="tcp:a tcp:c"), 0)
    words.heard(B, word("a", A, 5, targets="tcp:a tcp:b"), 0)  # it is late
    assert words.view().openflow_targets == ("tcp:a", "tcp:c")
    words.silent(A, 1)
    words.heard(B, word("a", A, 5, targets="tcp:b"), 2)
    assert words.view().openflow_targets == ("tcp:b",)


def test_targets_of_an_older_generation_or_none_at_all_change_nothing(words: Words) -> None:
    words.heard(A, word("a", A, 5, targets="tcp:a"), 0)
    words.heard(B, word("b", B, 4, targets="tcp:b"), 0)
    words.heard(A, word("a", A, 6), 0)
    assert words.view().openflow_targets == ("tcp:a",)


def test_one_that_says_nothing_of_owners_answers_nevertheless(words: Words) -> None:
    words.heard(A, None, 0)
    assert words.view().answering == (A,)
    assert words.wordless(A)
    assert not words.wordless(B)


def test_nodes_are_spread_over_all_controllers_and_those_of_one_that_goes_over_the_others() -> None:
    controllers = [A, B, C, "10.0.0.4:1"]
    nodes = [f"node-{number}" for number in range(400)]
    first = {node: spread(node, controllers)[0] for node in nodes}
    for controller in controllers:
        assert 60 < list(first.values()).count(controller) < 140
    left = [controller for controller in controllers if controller != A]
    moved = [spread(node, left)[0] for node in nodes if first[node] == A]
    assert all(spread(node, left)[0] == first[node] for node in nodes if first[node] != A)
    assert {moved.count(controller) > 10 for controller in left} == {True}
    assert spread("node-1", controllers) == spread("node-1", reversed(controllers))


@pytest.mark.parametrize(
    ("details", "address"),
    [
        ("Node node-1 is controller-2's at 10.0.0.2:6654", "10.0.0.2:6654"),
        ("Node node-1 is controller-2's at [fd00::2]:6654.", "[fd00::2]:6654"),
        ("Node node-1 is c's at unix:/run/c.sock", "unix:/run/c.sock"),
        ("Node node-1 is nobody's", ""),
        ("Node node-1 is c's at home", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_a_refusal_may_say_where_to_go(details: str | None, address: str) -> None:
    assert elsewhere(details) == address
