# SPDX-License-Identifier: Apache-2.0
"""Who waits for a controller's answer, and for which answer."""

from __future__ import annotations

import pytest

from agent.unanswered import Confirmation, Rejected, Unanswered
from sdn.v1 import controller_pb2 as messages

X, Y, Z = ("x", "eth0"), ("y", "eth0"), ("z", "eth0")


def rejected(sequence: int, reason: str, **wrong: str) -> messages.Rejected:
    """`wrong`: "item_3"="why"."""
    items = [messages.WrongItem(index=int(name[5:]), reason=why) for name, why in wrong.items()]
    return messages.Rejected(sequence=sequence, reason=reason, wrong=items)


def test_an_attachment_is_confirmed_by_the_answer_to_its_own_message_only() -> None:
    unanswered = Unanswered()
    first, second = unanswered.expect(X), unanswered.expect(Y)
    unanswered.sent(1, X)
    unanswered.sent(2, Y)
    outcome = unanswered.programmed(2)
    assert (outcome.confirmed, outcome.settled) == ([Y], [(second, None)])
    assert unanswered.programmed(2).settled == []
    assert unanswered.rejected(rejected(1, "no")).settled == [(first, "no")]


def test_who_waits_is_answered_by_the_next_streams_full_state() -> None:
    unanswered = Unanswered()
    waiting = unanswered.expect(X)
    unanswered.sent(1, X)
    unanswered.ended()
    assert unanswered.programmed(1).settled == []
    unanswered.listed(2, [X, Y])
    outcome = unanswered.programmed(2)
    assert sorted(outcome.confirmed) == [X, Y]
    assert outcome.settled == [(waiting, None)]


def test_of_a_full_state_only_what_is_wrong_is_refused() -> None:
    unanswered = Unanswered()
    good, bad = unanswered.expect(X), unanswered.expect(Y)
    unanswered.listed(3, [X, Y, Z])
    outcome = unanswered.rejected(rejected(3, "two are wrong", item_1="y is wrong", item_2="z is wrong"))
    assert outcome.confirmed == [X]
    assert sorted(outcome.settled, key=lambda pair: pair[1] or "") == [(good, None), (bad, "y is wrong")]
    assert outcome.standing == {Z: "z is wrong"}
    assert not outcome.void


def test_a_controller_that_does_not_list_what_is_wrong_names_it_in_the_reason() -> None:
    unanswered = Unanswered()
    good, bad = unanswered.expect(X), unanswered.expect(Y)
    unanswered.listed(3, [X, Y])
    reason = "Pod default/y: attachments[1].addresses[0]: is another's; attachments[7]: is not there"
    outcome = unanswered.rejected(rejected(3, reason))
    assert outcome.confirmed == [X]
    assert (good, None) in outcome.settled
    assert (bad, reason) in outcome.settled
    assert not outcome.void


def test_when_it_cannot_be_told_what_is_wrong_all_go_on_to_wait() -> None:
    unanswered = Unanswered()
    waiting = unanswered.expect(X)
    unanswered.listed(3, [X, Y])
    outcome = unanswered.rejected(rejected(3, "node: Node node-1 is no longer registered"))
    assert (outcome.confirmed, outcome.settled, outcome.standing, outcome.void) == ([], [], {}, True)
    unanswered.ended()
    unanswered.listed(4, [X, Y])
    assert unanswered.programmed(4).settled == [(waiting, None)]


def test_an_answer_about_an_attachment_that_was_made_anew_since_confirms_nothing() -> None:
    unanswered = Unanswered()
    unanswered.listed(1, [X, Y])
    waiting = unanswered.expect(X)
    unanswered.sent(2, X)
    outcome = unanswered.programmed(1)
    assert (outcome.confirmed, outcome.settled) == ([Y], [])
    assert unanswered.programmed(2).settled == [(waiting, None)]


def test_an_attachment_that_is_gone_is_not_confirmed_any_more() -> None:
    unanswered = Unanswered()
    unanswered.expect(X)
    unanswered.listed(1, [X])
    unanswered.forget(X)
    outcome = unanswered.rejected(rejected(1, "attachments[0]: is wrong"))
    assert (outcome.confirmed, outcome.settled, outcome.standing, outcome.void) == ([], [], {}, False)


def test_a_confirmation_is_settled_once() -> None:
    confirmation = Confirmation()
    assert not confirmation.wait(0)
    confirmation.settle("is wrong")
    confirmation.settle(None)
    with pytest.raises(Rejected, match="is wrong"):
        confirmation.wait(0)
