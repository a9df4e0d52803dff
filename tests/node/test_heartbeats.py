# SPDX-License-Identifier: Apache-2.0
"""How soon controllers find that another one is gone, over a real link that is cut, and what listening costs: prints
its figures, asserts none.

`SDN_HEARTBEAT_ROUNDS` sets how often each is measured, and for how many seconds what listening costs (default 2, which
shows that all is found; 10 give figures).
"""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator

import pytest

from tests.node.node import run
from tests.unit.heartbeat_process import Remote, Told

pytestmark = pytest.mark.alone

ROUNDS = int(os.environ.get("SDN_HEARTBEAT_ROUNDS", "2"))


@pytest.fixture
def hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a link between them, 192.0.2.1 and 192.0.2.2."""
    names = (f"hb-{os.getpid()}-a", f"hb-{os.getpid()}-b")
    for name in names:
        run("ip", "netns", "add", name)
    try:
        link = ("link", "add", "name", "hb0", "type", "veth", "peer", "name", "hb0", "netns", names[1])
        run("ip", "-n", names[0], *link)
        for number, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", "hb0")
            run("ip", "-n", name, "link", "set", "hb0", "up")
        yield names
    finally:
        for name in names:
            run("ip", "netns", "delete", name)


def inside(netns: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", netns)


def show(what: str, seconds: list[float]) -> None:
    figures = sorted(each * 1000 for each in seconds)
    print(
        f"{what}: median {statistics.median(figures):.0f} ms, {figures[0]:.0f} to {figures[-1]:.0f} ms "
        f"({len(figures)} times)"
    )


def told_next(remote: Remote, what: str) -> Told:
    """The next thing that is told, which must be this."""
    told = remote.told.next()
    assert told.what == what
    return told


def test_how_soon_a_killed_process_is_found() -> None:
    taken = []
    for _ in range(ROUNDS):
        with Remote(("a",)) as a, Remote(("b",)) as b:
            a.peers(b.named)
            told_next(a, "heard")
            killed = b.signal(signal.SIGKILL)
            taken.append(told_next(a, "silent").at - killed)
    show("kill -9 to silent", taken)


def test_how_soon_a_stopped_process_is_found() -> None:
    silent: list[float] = []
    heard: list[float] = []
    with Remote(("a",)) as a, Remote(("b",)) as b:
        a.peers(b.named)
        told_next(a, "heard")
        for number in range(ROUNDS):
            time.sleep(0.5 + number * 0.013)  # at all moments between two beats
            stopped = b.signal(signal.SIGSTOP)
            silent.append(told_next(a, "silent").at - stopped)
            going = b.signal(signal.SIGCONT)
            heard.append(told_next(a, "heard").at - going)
    show("SIGSTOP to silent", silent)
    show("SIGCONT to heard", heard)


@pytest.mark.parametrize("how", ["nft", "link"])
def test_how_soon_a_cut_is_found(hosts: tuple[str, str], how: str) -> None:
    rules = "table inet cut {\nchain in {\ntype filter hook input priority 0\npolicy drop\n}\n}\n"

    def cut() -> None:
        if how == "nft":
            run(*inside(hosts[1]), "nft", "-f", "-", stdin=rules)
        else:
            run("ip", "-n", hosts[1], "link", "set", "hb0", "down")

    def mend() -> None:
        if how == "nft":
            run(*inside(hosts[1]), "nft", "delete", "table", "inet", "cut")
        else:
            run("ip", "-n", hosts[1], "link", "set", "hb0", "up")

    def timed(change: Callable[[], None], what: str) -> list[float]:
        """Seconds on both ends from a change that takes a few milliseconds itself."""
        begun = time.monotonic()
        change()
        return [told_next(end, what).at - begun for end in (a, b)]

    silent: list[float] = []
    heard: dict[float, list[float]] = {0.0: [], 5.0: []}
    with (
        Remote(("a",), host="192.0.2.1", prefix=inside(hosts[0])) as a,
        Remote(("b",), host="192.0.2.2", prefix=inside(hosts[1])) as b,
    ):
        a.peers(b.named)
        b.peers(a.named)
        for end in (a, b):
            told_next(end, "heard")
        for number in range(ROUNDS):
            for seconds, taken in heard.items():
                time.sleep(0.5 + number * 0.013)
                silent += timed(cut, "silent")
                time.sleep(seconds)
                taken += timed(mend, "heard")
    show(f"cut by {how} to silent", silent)
    for seconds, taken in heard.items():
        show(f"mended {seconds:.0f} s after that to heard, {how}", taken)


def test_what_30_peers_cost() -> None:
    names = [f"p{number}" for number in range(30)]
    with Remote(("a",)) as a, Remote(names) as others:
        a.peers(others.named)
        others.peers(a.named)
        for _ in names:
            told_next(a, "heard")
        seconds = float(ROUNDS)
        before = a.cpu_seconds()
        time.sleep(seconds)
        used = a.cpu_seconds() - before
        a.told.nothing_for(0)
    print(f"30 peers: {used / seconds * 100:.1f} % of a processor")


@pytest.mark.parametrize(("peers", "busy"), [*itertools.product((2, 30), (1, 8, 32))])
def test_what_a_busy_interpreter_does_to_it(peers: int, busy: int) -> None:
    names = [f"p{number}" for number in range(peers)]
    with Remote(("a",)) as a, Remote(names, busy=busy) as others:
        a.peers(others.named)
        for _ in names:
            a.told.next()
        time.sleep(ROUNDS)
        wrong = 0
        while not a.told.queue.empty():
            wrong += a.told.queue.get().what == "silent"
    print(
        f"{peers} peers in a process with {busy} threads that compute: taken for silent {wrong} times in {ROUNDS} s"
    )
