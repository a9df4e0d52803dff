# SPDX-License-Identifier: Apache-2.0
"""Policies hold at every moment: while a pod starts, while policies change, and while daemons are away.

Real packets of every kind, all the time, from all sides; a few moments in which something slips through are what is
looked for, so everything is repeated, and what is seen is compared with what may have been in force just then.
"""

import contextlib
import itertools
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sdn.lab.lab import Lab
from sdn.lab.pods import TRY_AGAIN
from sdn.lab.waiting import patience, wait_until
from tests.lab import accounts
from tests.lab import policy_documents as documents
from tests.lab import service_objects as objects
from tests.lab.policy_changes import PolicyLab, Traffic, running
from tests.lab.policy_frames import KINDS
from tests.lab.policy_scenarios import (
    ADMIN,
    CROSSED,
    EGRESS,
    EXISTENCE,
    INGRESS,
    Scenario,
    namespace_labels,
    pod_labels,
)
from tests.lab.policy_starts import Life, Starts, intruders_of
from tests.lab.policy_timeline import PROMPT, spread

pytestmark = pytest.mark.alone

INTRUDERS = ("near pod", "far pod", "far node", "outside")
STARTS = 200
OPEN_EVERY = 20
"""One start in so many is of a pod without policies, on which everything must be seen."""
FLOOD_RATE = 2000
"""Packets a second of each intruder."""
GENTLE_RATE = 100
CROWDED = 0.05
"""The same where datagrams of others are counted meanwhile. So large a share of those between nodes may be lost then:
they come through one queue with the intruders', which holds a tenth of a second of them on a busy machine.
"""
CROSSING = 1 / 200
"""So large a share of the datagrams between nodes may pass that neither state allows, where two directions change in
opposite ways: the two switches change in a moment of their own each.
"""
CHANGES = 61
FEWER_CHANGES = 9
"""Of the one scenario that has most of them, and of each other one; odd, so that what was closed last stays closed."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[PolicyLab]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def rng() -> random.Random:
    seed = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {seed}: SDN_TEST_SEED={seed} repeats the same choices")
    return random.Random(seed)


@pytest.fixture(autouse=True)
def no_switch_aborts(cluster: PolicyLab) -> Iterator[None]:
    """A switch that died has lost packets and connections for a reason that is no policy's."""

    def aborts() -> int:
        logs = [cluster.lab.log(f"{node.name}/ovs-vswitchd") for node in cluster.lab.spec.node_machines]
        return sum(log.read_text(encoding="utf-8", errors="replace").count("assertion") for log in logs)

    before = aborts()
    yield
    assert aborts() == before, "ovs-vswitchd has aborted"


# A pod's start.


@contextlib.contextmanager
def starts(cluster: PolicyLab, rate: int) -> Iterator[Starts]:
    """Pods on node-1, with everybody against them. In `quiet` all pods are under default deny, in `mixed` those with
    the label that their runtime gives them.
    """
    lab = cluster.lab
    denials = [
        documents.default_deny("quiet"),
        documents.default_deny("mixed", documents.labelled(quiet="yes")),
    ]
    intruders = intruders_of(lab, cluster.pods["free1"], cluster.pods["free2"], "node-2")
    documents.declare(lab, denials)
    try:
        with led_to_pods(lab), Starts(lab, "node-1", intruders, rate) as found:
            yield found
    finally:
        documents.delete(lab, denials)
        objects.settle(lab)


@contextlib.contextmanager
def led_to_pods(lab: Lab) -> Iterator[None]:
    """Somebody outside sends what is for pods to their own node."""
    node = lab.spec.node("node-1")
    ways = [
        ("-4", lab.spec.cluster_ranges[0], node.ipv4),
        ("-6", lab.spec.cluster_ranges[1], node.ipv6),
    ]
    for family, target, via in ways:
        lab.run("outside", "ip", family, "route", "add", target, "via", via).check_returncode()
    try:
        yield
    finally:
        for family, target, via in ways:
            lab.run("outside", "ip", family, "route", "del", target, "via", via)


QUIET = (("quiet", {}), ("mixed", {"quiet": "yes"}))
OPEN = ("mixed", {"quiet": "no"})


def test_a_pod_under_default_deny_gets_and_sends_nothing_from_its_first_millisecond(
    cluster: PolicyLab, rng: random.Random
) -> None:
    began = time.monotonic()
    with starts(cluster, FLOOD_RATE) as watch:
        for number, (namespace, labels) in zip(range(STARTS), itertools.cycle(QUIET)):
            if number % OPEN_EVERY == 0:
                watch.live(OPEN[0], "open", OPEN[1], 0.1)
            watch.live(namespace, "quiet", labels, rng.uniform(0, 0.03))
        time.sleep(0.3)
        watch.listen()
        quiet = [life for life in watch.lives if life.group == "quiet"]
        opened = [life for life in watch.lives if life.group == "open"]
    seconds = time.monotonic() - began
    print(f"\n{len(quiet)} starts under default deny, {len(opened)} open ones, in {seconds:.0f} s")
    print(f"ADD took {spread([life.seconds for life in quiet])}")
    print(f"before ADD was answered the interface was up for {spread([life.early for life in quiet])}")
    for group, lives in (("quiet", quiet), ("open", opened)):
        flooded = Counter[str]()
        for life in lives:
            flooded.update(life.flooded)
        print(
            f"{group}: sent to them {dict(flooded)}, got {told(sum_of(lives, 'intruders'))}; they sent"
            f" {sum(life.spoken for life in lives)}, of that arrived {told(sum_of(lives, 'escaped'))}"
        )
    assert len(quiet) == STARTS
    assert_attacked(quiet)
    assert_silent(quiet)
    assert_heard(opened)
    assert len({address for life in quiet for address in life.addresses}) < len(quiet), (
        "addresses were reused"
    )
    accounts.wait_until_settled(cluster.lab)


def assert_attacked(lives: list[Life]) -> None:
    """Everybody knew the address, and sent to it; the pod spoke before its ADD was answered.

    On a busy machine one of them may miss its moment now and then.
    """
    most = len(lives) * 0.9
    assert sum(bool(life.aimed) for life in lives) > most, "addresses were not known beforehand"
    for name in INTRUDERS:
        assert sum(bool(life.flooded.get(name)) for life in lives) > most, f"{name} did not send"
    assert sum(bool(life.spoken) for life in lives) > most, "pods did not speak"
    assert sum(life.early > 0 for life in lives) > most, "pods hardly spoke before they were ready"


def assert_silent(lives: list[Life]) -> None:
    seen = [
        f"start {life.number}, {life.addresses}: in {told(life.intruders)}; out {told(life.escaped)};"
        f" from elsewhere {dict(life.strangers) or 'nothing'}"
        for life in lives
        if life.intruders or life.escaped or life.strangers
    ]
    for line in seen:
        print(line)
    assert not seen, f"{len(seen)} of {len(lives)} pods got or sent something, such as {seen[0]}"


def assert_heard(lives: list[Life]) -> None:
    """The same eyes see everything where nothing is denied."""
    got, went = sum_of(lives, "intruders"), sum_of(lives, "escaped")
    for version, kind in itertools.product((4, 6), KINDS):
        for name in INTRUDERS:
            assert got[name, version, kind], f"{kind} of IPv{version} from {name} never arrived"
            assert went[name, version, kind], f"{kind} of IPv{version} never arrived at {name}"


def sum_of(lives: list[Life], what: str) -> Counter[tuple[str, int, str]]:
    found: Counter[tuple[str, int, str]] = Counter()
    for life in lives:
        found.update(getattr(life, what))
    return found


def told(seen: Counter[tuple[str, int, str]]) -> str:
    """By whom, and of which kinds."""
    by_name: dict[str, Counter[str]] = {}
    for (name, version, kind), count in seen.items():
        by_name.setdefault(name, Counter())[f"IPv{version} {kind}"] += count
    parts = [f"{name} {sum(kinds.values())} ({dict(kinds)})" for name, kinds in sorted(by_name.items())]
    return "; ".join(parts) or "nothing"


# A change of policies.


def test_while_nothing_changes_nothing_is_lost_and_nothing_leaks(cluster: PolicyLab, tmp_path: Path) -> None:
    """What the others are compared with."""
    with cluster.scenario(INGRESS), Traffic(cluster, INGRESS, "A", tmp_path) as traffic:
        time.sleep(4)
    assert_kept(traffic)


@pytest.mark.parametrize(
    "name", ["ingress", "egress", "existence", "pod labels", "namespace labels", "admin", "crossed"]
)
def test_a_change_lets_nothing_pass_that_neither_state_allows_and_loses_nothing_that_both_allow(
    cluster: PolicyLab, rng: random.Random, tmp_path: Path, name: str
) -> None:
    scenario = scenario_of(cluster, name)
    with cluster.scenario(scenario), Traffic(cluster, scenario, "A", tmp_path) as traffic:
        time.sleep(0.5)
        count = CHANGES if name == "ingress" else FEWER_CHANGES
        for number, state in zip(range(1, count + 1), itertools.cycle("BA")):
            change = traffic.change(state)
            traffic.confirm(change)
            if number == count:
                traffic.stay(change, 0.5)
            else:
                time.sleep(rng.uniform(0.05, 0.4))
    assert_kept(traffic)


def scenario_of(cluster: PolicyLab, name: str) -> Scenario:
    if name == "pod labels":
        return pod_labels({"p": cluster.labelled("p"), "r": cluster.labelled("r")})
    if name == "namespace labels":
        return namespace_labels()
    return {
        "ingress": INGRESS,
        "egress": EGRESS,
        "existence": EXISTENCE,
        "admin": ADMIN,
        "crossed": CROSSED,
    }[name]


def assert_kept(traffic: Traffic, share: float = 0.0) -> None:
    """What policies say was so at every moment, for datagrams and connections. `share`: of datagrams between nodes so
    many may be lost.
    """
    findings, asked = traffic.findings, traffic.asked
    print(f"\n{traffic.scenario.name}, {len(traffic.timeline.changes) - 1} changes: {findings.told()}")
    print(
        f"connections: {asked.answered} answered, {asked.failed} not; {len(asked.leaked)} leaked,"
        f" {len(asked.lost)} lost; {traffic.exchanges} exchanges over those that stay"
    )
    leaked = findings.leaked
    if traffic.scenario.both_directions:
        crossing = [item for item in leaked if not item[0].same_node and traffic.timeline.changing(item[1])]
        print(f"leaked between nodes: {traffic.timeline.told(crossing) or 'nothing'}")
        assert len(crossing) <= findings.between * CROSSING, f"{len(crossing)} of {findings.between} passed"
        leaked = [item for item in leaked if item[0].same_node or not traffic.timeline.changing(item[1])]
    assert not leaked, f"passed: {traffic.timeline.told(leaked)}"
    if findings.lags:
        late = statistics.median(lag.confirmed for lag in findings.lags)
        assert late < patience(PROMPT), f"ways that close are open for {late:.3f} s after that was confirmed"
    lost = findings.lost
    if len(lost) < findings.arrived * share:
        lost = [item for item in lost if item[0].same_node]
    assert not lost, f"lost: {traffic.timeline.told(lost)}"
    assert not asked.leaked, asked.leaked[:5]
    assert not asked.lost, asked.lost[:5]
    assert not traffic.cut, traffic.cut
    assert findings.arrived > 100
    assert asked.answered > 10
    assert traffic.exchanges > 10


# A daemon that is away.


def test_policies_hold_while_the_controller_is_killed_and_are_in_force_when_they_change_right_after(
    cluster: PolicyLab, rng: random.Random, tmp_path: Path
) -> None:
    lab = cluster.lab
    with cluster.scenario(INGRESS), Traffic(cluster, INGRESS, "A", tmp_path) as traffic:
        time.sleep(0.5)
        for state in "BABA":
            # Declared, and maybe not handed to any switch yet.
            change = traffic.change(state)
            time.sleep(rng.uniform(0, 0.03))
            lab.wait_restarted("controller-1", lab.kill("controller-1"))
            traffic.confirm(change)
            time.sleep(0.3)
        for state in "BAB":
            lab.wait_restarted("controller-1", lab.kill("controller-1"))
            documents.wait_served(lab)
            change = traffic.change(state)
            traffic.confirm(change)
            time.sleep(0.3)
        traffic.stay(change, 0.5)
    assert_kept(traffic)
    accounts.wait_until_settled(lab)


@pytest.mark.parametrize("victim", ["controller-1", "node-1/agent"])
def test_no_pod_starts_open_while_a_daemon_is_away_or_just_back(
    cluster: PolicyLab, tmp_path: Path, victim: str
) -> None:
    lab = cluster.lab
    with starts(cluster, GENTLE_RATE) as watch, cluster.scenario(INGRESS):
        with Traffic(cluster, INGRESS, "A", tmp_path) as traffic, ThreadPoolExecutor(1) as background:
            kill_for_long(lab, victim)
            try:
                with watch.watched("quiet", "away", ahead=3) as away:
                    # What is told after the ADD has failed may meet a daemon that is just starting.
                    starting = background.submit(lab.start, victim)
            finally:
                lab.start(victim)
            for _ in range(40):
                back = watch.live("quiet", "back", seconds=0.3, ahead=3)
                # After many that failed it is not known whose turn it is.
                if back.aimed:
                    break
            starting.result()
            lab.wait_ready()
            # A last one that is open, for the same eyes.
            watch.live(OPEN[0], "open", OPEN[1], 0.3)
        lives = [life for life in watch.lives if life.group != "open"]
        opened = [life for life in watch.lives if life.group == "open"]
    failed = Counter(life.failed for life in lives)
    print(
        f"\n{victim}: ADD was answered with the codes {dict(failed)}; {told(sum_of(lives, 'intruders'))} got in"
    )
    print(f"open: {told(sum_of(opened, 'intruders'))} got in")
    assert away.failed == TRY_AGAIN
    assert back.aimed, "no pod could be made after it was back"
    for life in (away, back):
        assert set(INTRUDERS) == {name for name, sent in life.flooded.items() if sent}, life.flooded
    assert_silent(lives)
    assert {name for name, *_ in sum_of(opened, "intruders")} == set(INTRUDERS)
    assert_kept(traffic, CROWDED)
    accounts.wait_until_settled(lab)


def kill_for_long(lab: Lab, victim: str) -> None:
    """End it at once, and keep it from being started again."""
    lab.kill(victim)

    def stays_away() -> bool:
        # Between its death and the next start there is nothing to stop.
        lab.stop(victim)
        return lab.process(victim).state == "STOPPED"

    wait_until(stays_away, f"{victim} to stay away", 30)


def test_what_is_denied_stays_denied_while_the_switch_is_killed(cluster: PolicyLab, tmp_path: Path) -> None:
    """A switch that comes back knows nothing, neither flows nor connections, until it is told everything at once."""
    lab = cluster.lab
    with cluster.scenario(INGRESS), Traffic(cluster, INGRESS, "A", tmp_path, tcp=False) as traffic:
        time.sleep(0.5)
        lab.wait_restarted("node-1/ovs-vswitchd", lab.kill("node-1/ovs-vswitchd"))
        lab.wait_ready()
        objects.settle(lab)
        # Pods that could not find their gateway meanwhile ask again after a second or two.
        time.sleep(3)
        back = time.monotonic()
        time.sleep(1)
    findings = traffic.findings
    print(f"\n{findings.told()}")
    assert not findings.leaked, f"passed: {traffic.timeline.told(findings.leaked)}"
    late = [item for item in findings.lost if item[1].sent > back]
    assert not late, f"lost after it was back: {traffic.timeline.told(late)}"
    # A pod that cannot send loses nothing, and nothing of it passes.
    unsent = [way for way, when in findings.tried.items() if when < back]
    assert not unsent, f"not tried after it was back: {unsent}"
    opened = [way for way in findings.last if INGRESS.allows("A", way)]
    assert opened
    ended = [way for way in opened if findings.last[way] < back]
    assert not ended, f"nothing passed after it was back: {ended}"
    accounts.wait_until_settled(lab)
