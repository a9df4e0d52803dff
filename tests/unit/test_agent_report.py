# SPDX-License-Identifier: Apache-2.0
"""The agent's stream goes to the owner of its node, whatever happens to controllers, and nobody waits in vain for it.

The controllers are servers that only speak the agent's protocol (tests/node/controller.py); the agent is what it has of
streams, without a node.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.nodesetup.facts import Assignment, NodeFacts
from agent.owners import Owner, Owners, View
from agent.report import Rejected, Reporter
from agent.services.cache import ServiceCache
from agent.services.table import ServiceTable
from agent.services.watch import ServiceWatch
from agent.state import READY, Record
from agent.unanswered import Key
from sdn.v1 import controller_pb2 as messages
from sdn.v1 import types_pb2
from tests.node.cluster import Cluster, cluster
from tests.node.controller import Controller

NODE = "node-1"


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited 60 s for {what}"
        time.sleep(0.005)


def record(name: str) -> Record:
    number = sum(name.encode()) % 200 + 2
    return Record(
        container_id=f"c-{name}",
        ifname="eth0",
        network="pods",
        netns=f"/run/netns/{name}",
        pod_namespace="default",
        pod_name=name,
        pod_uid="",
        addresses=(ipaddress.ip_interface(f"10.241.1.{number}/24"),),
        mac=f"0a:00:00:00:00:{number:02x}",
        ofport=number,
        mtu=1400,
        labels={},
        created_at=1.0,
        phase=READY,
    )


class Agent:
    """What an agent has of streams: who owns its node, its session, its Services."""

    def __init__(self, folder: Path, *controllers: str, node: str = NODE) -> None:
        self.records: dict[Key, Record] = {}
        self.assignments: list[Assignment] = []
        self.programmed: list[Key] = []
        self.owners = Owners(controllers, node)
        facts = NodeFacts(
            name=node,
            uid=f"uid-{node}",
            addresses=(ipaddress.ip_address("172.31.0.11"),),
            tunnel_address=ipaddress.ip_address("172.31.0.11"),
            mac="0a:00:00:00:01:01",
            interface="eth0",
            uplink="eth0",
            encapsulation="geneve",
            datapath="netdev",
            mtu=1400,
        )
        self.reporter = Reporter(
            self.owners,
            facts=lambda: facts,
            ranges=list,
            attachments=lambda: list(self.records.values()),
            assigned=self.assignments.append,
            programmed=self.programmed.append,
        )
        self.table = ServiceTable()
        self.services = ServiceWatch(self.owners, node, self.table, ServiceCache(folder))

    def __enter__(self) -> Agent:
        self.reporter.start()
        self.services.start()
        self.owners.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.services.close()
        self.reporter.close()
        self.owners.close()

    @property
    def at(self) -> str:
        """Name of the controller that has the session."""
        return self.reporter.controller[0]

    def wait_at(self, name: str) -> None:
        wait_until(lambda: self.at == name, f"the session to be at {name!r}, not {self.at!r}")

    def add(self, name: str) -> Callable[[float], bool]:
        """Begin an ADD; how to wait for it."""
        made = self.records[f"c-{name}", "eth0"] = record(name)
        return self.reporter.attach(made).wait

    def remove(self, name: str) -> None:
        del self.records[f"c-{name}", "eth0"]
        self.reporter.detach(f"c-{name}", "eth0")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, "a", "b", "c") as controllers:
        yield controllers


@contextmanager
def agent_of(folder: Path, controllers: Cluster, *names: str) -> Iterator[Agent]:
    """An agent that is told of these controllers only; none: of all."""
    targets = [controllers[name].target for name in names or controllers.controllers]
    (folder / "agent").mkdir()
    with Agent(folder / "agent", *targets) as agent:
        yield agent


@contextmanager
def deaf() -> Iterator[str]:
    """The address of somebody who takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_node_that_nobody_owns_goes_to_whom_it_asks(tmp_path: Path, three: Cluster) -> None:
    with agent_of(tmp_path, three) as agent:
        wait_until(lambda: agent.at != "", "a session")
        assert three.owner(NODE) == agent.at


def test_the_session_is_at_the_owner_though_only_others_are_known(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "c")
    with agent_of(tmp_path, three, "a", "b") as agent:
        agent.wait_at("c")
        assert agent.reporter.controller[1] == three["c"].target
        assert set(agent.owners.view.known) == {three[name].target for name in "abc"}
    assert three["a"].sessions | three["b"].sessions == set()


def test_the_session_moves_with_the_word_of_any_controller(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        for owner, told_by in (("b", "c"), ("c", "a"), ("a", "b")):
            three.give(NODE, owner, told_by=told_by)
            agent.wait_at(owner)


def test_a_late_controller_moves_nothing(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        old = three.word(NODE)
        three.give(NODE, "b")
        agent.wait_at("b")
        began = agent.reporter.changed_at
        three["c"].tell_owner(NODE, old)
        three["a"].tell_owner(NODE, old)
        three.tell(NODE)
        time.sleep(0.3)
        assert (agent.at, agent.reporter.changed_at) == ("b", began)


def test_an_owner_that_takes_its_node_again_keeps_the_session(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        began = agent.reporter.changed_at
        generation = three.give(NODE, "a")
        wait_until(lambda: agent.owners.view.owner.generation == generation, "the word")
        assert (agent.at, agent.reporter.changed_at) == ("a", began)


def test_an_owner_that_dies_is_left_as_soon_as_another_one_is_told(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        three["a"].stop()
        wait_until(lambda: not agent.reporter.connected, "the agent to notice")
        three.lose("a")
        three.give(NODE, "b")
        agent.wait_at("b")
        assert three["c"].sessions == set()


def test_an_owner_that_hangs_is_left_as_soon_as_another_one_is_told(tmp_path: Path, three: Cluster) -> None:
    """Its session is there, says nothing, and ends nothing."""
    three.give(NODE, "a")
    three["a"].confirms.clear()
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        waits = agent.add("x")
        three.give(NODE, "b", told_by="c")
        assert waits(60)
        assert agent.at == "b"


def test_a_silent_controller_delays_nothing_at_another(tmp_path: Path, three: Cluster) -> None:
    """There is no time limit here: the one that answers is connected while nobody has given the silent ones up."""
    three.give(NODE, "a")
    with deaf() as first, deaf() as second, Agent(tmp_path, first, second, three["a"].target) as agent:
        agent.wait_at("a")
        assert not {first, second} & set(agent.owners.view.answering)


def test_an_owner_that_cannot_be_reached_is_replaced_by_the_word_of_another(
    tmp_path: Path, three: Cluster
) -> None:
    with deaf() as nobody:
        three["a"].target = nobody
        three.give(NODE, "a")
        with agent_of(tmp_path, three, "b", "c") as agent:
            wait_until(lambda: agent.owners.view.owner.controller == "a", "the word")
            time.sleep(0.2)
            three.give(NODE, "b")
            agent.wait_at("b")


def test_an_owner_is_found_under_another_address_than_it_thinks(tmp_path: Path, three: Cluster) -> None:
    served = three["a"].target
    three["a"].target = "127.0.0.1:1"
    three.give(NODE, "a")
    (tmp_path / "agent").mkdir()
    with Agent(tmp_path / "agent", served, three["b"].target) as agent:
        agent.wait_at("a")
        # Its own address is no reason to leave it, once it is known by its name.
        three.give(NODE, "a")
        time.sleep(0.2)
        assert agent.at == "a"


@pytest.mark.parametrize(
    ("answering", "order"),
    [
        ({"known", "told"}, ["known", "told"]),
        ({"told"}, ["told", "known"]),
        ({"known"}, ["known", "told"]),
        (set(), ["known", "told"]),
    ],
)
def test_of_an_owners_two_addresses_the_one_that_answers_is_asked_first(
    tmp_path: Path, answering: set[str], order: list[str]
) -> None:
    """It may have moved since it welcomed us, or not be reached where it thinks it is."""
    agent = Agent(tmp_path, "a")
    agent.reporter._reached["b"] = "known"
    view = View(Owner("b", "told", 7), ("a", "known", "told"), ("a", *sorted(answering)), ())
    assert list(agent.reporter._order(view, False)) == order


def test_a_refusal_says_where_to_go_when_nobody_else_does(tmp_path: Path, three: Cluster) -> None:
    """The one controller that is known is late with its word."""
    three.members = {"a"}
    with agent_of(tmp_path, three, "a") as agent:
        agent.wait_at("a")
        three.give(NODE, "b", told_by="nobody")
        three["a"].end_session(NODE)
        agent.wait_at("b")


def test_controllers_that_know_nothing_of_owners_are_asked_in_turn(tmp_path: Path) -> None:
    """What an agent does with controllers of before."""
    with Controller(tmp_path, name="old-1") as first, Controller(tmp_path, name="old-2") as second:
        with Agent(tmp_path, "127.0.0.1:1", first.target, second.target) as agent:
            wait_until(lambda: agent.reporter.connected, "a session")
            served, other = (first, second) if agent.at == "old-1" else (second, first)
            assert agent.add("x")(60)
            assert served.pods(NODE) == {"default/x"}
            served.stop()
            agent.wait_at(other.name)
            assert agent.add("y")(60)
            assert other.pods(NODE) == {"default/x", "default/y"}
            other.stop()
            wait_until(lambda: not agent.reporter.connected, "the agent to notice")
            waits = agent.add("z")
            served.start()
            assert waits(60)
            assert served.pods(NODE) == {"default/x", "default/y", "default/z"}


def test_a_controller_that_learns_of_owners_is_listened_to(tmp_path: Path) -> None:
    """An older controller is replaced by a newer one at the same address."""
    with Controller(tmp_path, name="a") as old, Agent(tmp_path, old.target) as agent:
        agent.wait_at("a")
        old.stop()
        with cluster(tmp_path, "a", "b") as controllers:
            controllers.give(NODE, "b")
            agent.wait_at("b")


def test_agents_are_spread_over_controllers(tmp_path: Path) -> None:
    with Controller(tmp_path, name="old-1") as first, Controller(tmp_path, name="old-2") as second:
        agents = [Agent(tmp_path, first.target, second.target, node=f"node-{n}") for n in range(1, 13)]
        for agent in agents:
            agent.__enter__()
        try:
            for agent in agents:
                wait_until(lambda agent=agent: agent.reporter.connected, "all sessions")  # type: ignore[misc]
            assert {agent.at for agent in agents} == {"old-1", "old-2"}
        finally:
            for agent in agents:
                agent.__exit__()


def test_adds_under_way_are_confirmed_once_by_the_new_owner(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    three["a"].confirms.clear()
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        waits = [agent.add(f"x{number}") for number in range(20)]
        agent.remove("x3")
        three.give(NODE, "b")
        for number, wait in enumerate(waits):
            assert wait(0.2 if number == 3 else 60) is (number != 3)
        assert sorted(agent.programmed) == sorted(agent.records)
        assert three["b"].pods(NODE) == {f"default/{held.pod_name}" for held in agent.records.values()}


def test_adds_while_the_owner_changes_again_and_again(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        ending = threading.Event()

        def change() -> None:
            while not ending.wait(0.03):
                three.give(NODE, "bca"[int(time.monotonic() * 1000) % 3])

        changing = threading.Thread(target=change)
        changing.start()
        try:
            for number in range(60):
                assert agent.add(f"x{number}")(60)
                if number % 3 == 0:
                    agent.remove(f"x{number}")
        finally:
            ending.set()
            changing.join()
        agent.wait_at(three.owner(NODE))
        held = {f"default/{held.pod_name}" for held in agent.records.values()}
        wait_until(lambda: three[three.owner(NODE)].pods(NODE) == held, "the owner to know all")


@pytest.mark.parametrize("lists", [True, False])
def test_one_wrong_attachment_of_the_full_state_fails_no_other(
    tmp_path: Path, three: Cluster, lists: bool
) -> None:
    three.give(NODE, "a")
    three["a"].confirms.clear()
    three["b"].wrong = {"default/bad", "default/standing"}
    three["b"].lists_wrong = lists
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        agent.records["c-standing", "eth0"] = record("standing")
        good, bad = agent.add("good"), agent.add("bad")
        three.give(NODE, "b")
        assert good(60)
        with pytest.raises(Rejected, match="Pod default/bad: ") as refused:
            bad(60)
        if lists:
            assert "standing" not in str(refused.value)
        agent.remove("bad")
        # The stream goes on, and so do other ADDs.
        began = agent.reporter.changed_at
        assert agent.add("later")(60)
        # What was wrong may be right later: it is told again, on the same stream.
        three["b"].wrong = set()
        wait_until(lambda: ("c-standing", "eth0") in agent.programmed, "the standing one to be confirmed")
        assert (agent.at, agent.reporter.changed_at) == ("b", began)


def test_services_come_from_the_owner_and_from_any_other_when_it_is_gone(
    tmp_path: Path, three: Cluster
) -> None:
    three.give(NODE, "a")
    for controller in three.controllers.values():
        controller.services["default", "web"] = messages.ServiceState(
            namespace="default", name="web", type="ClusterIP", cluster_ips=["10.97.0.50"]
        )
        controller.nodes[NODE] = types_pb2.NodeInfo(name=NODE, uid=f"uid-{NODE}")
    with agent_of(tmp_path, three) as agent:
        wait_until(lambda: ("default", "web") in agent.table.services(), "the Service")
        for name in "bc":
            three[name].stop()
        wait_until(lambda: three["a"].service_watchers == 1, "the stream of Services at the owner")
        for name in "bc":
            three[name].start()
        wait_until(lambda: len(agent.owners.view.answering) == 3, "all controllers")
        # The owner lost the node, and it may hang: the stream goes with the node.
        three.give(NODE, "b")
        wait_until(lambda: three["b"].service_watchers == 1, "the stream at the new owner")
        three["b"].stop()
        wait_until(lambda: three["a"].service_watchers + three["c"].service_watchers == 1, "any other")
        assert ("default", "web") in agent.table.services()
        at = "a" if three["a"].service_watchers else "c"
        other = messages.ServiceState(namespace="default", name="other", type="ClusterIP")
        three[at].serve(other)
        wait_until(lambda: ("default", "other") in agent.table.services(), "what it tells")


def test_the_latest_word_about_targets_is_known(tmp_path: Path, three: Cluster) -> None:
    three.give(NODE, "a")
    with agent_of(tmp_path, three) as agent:
        agent.wait_at("a")
        assert len(agent.assignments[-1].openflow_targets) == 3
        three.lose("c")
        left = ("tcp:172.31.0.1:6653", "tcp:172.31.0.1:6654")
        wait_until(lambda: agent.owners.view.openflow_targets == left, "two targets")
        three.find("c")
        wait_until(lambda: len(agent.owners.view.openflow_targets) == 3, "three targets")
        assert agent.at == "a"
