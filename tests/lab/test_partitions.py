# SPDX-License-Identifier: Apache-2.0
"""Random partitions of controllers, store and nodes, one turning into the next, while pods and Services change: never
do two controllers write to one switch, and no packet between pods is lost.

`SDN_PARTITIONS` sets how many (default 25). The seed is printed; `SDN_TEST_SEED` repeats the same partitions.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from sdn.lab import partitions
from sdn.lab.lab import Lab
from tests.lab import accounts, fencing, labs, witness
from tests.lab.churn import Churn
from tests.lab.fencing import Account
from tests.lab.storms import Partition, Storm
from tests.lab.watching import Watch

pytestmark = pytest.mark.alone

COUNT = int(os.environ.get("SDN_PARTITIONS", "25"))
#: Seconds (stretched) until every controller owns a switch again. Who was found silent so often keeps away for 30 s
#: each time (controller/ha/damping.py), and takes nothing for 5 s more; a busy machine may do that again, and again.
WHOLE_AGAIN = 180
_TELL = 25


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("partitions", nodes=3, controllers=3, store="etcd", etcd=3) as found:
        labs.add_pods(found, 3, "steady")
        yield found


@pytest.fixture(scope="module")
def seed() -> int:
    found = int(os.environ.get("SDN_TEST_SEED", random.randrange(1 << 32)))
    print(f"\nseed {found}: SDN_TEST_SEED={found} SDN_PARTITIONS={COUNT} repeats the same partitions")
    return found


def weather(lab: Lab, storm: Storm, churn: Churn) -> list[Partition]:
    """So many partitions, one after the other; all that there were, those in which all was whole among them."""
    past: list[Partition] = []
    cut = 0
    while cut < COUNT:
        now = storm.next()
        partitions.become(lab, now.cuts)
        past.append(now)
        time.sleep(now.seconds)
        churn.check()
        cut += bool(now.cuts)
        if now.cuts and cut % _TELL == 0:
            print(f"{cut} partitions, now {now}", flush=True)
    return past


def figures(told: dict[str, Account]) -> str:
    """In one line, of all switches."""
    each = told.values()
    writes = [write for account in each for write in account.writes]
    return (
        f"{sum(account.changes for account in each)} changes of the master in"
        f" {sum(len(account.grants) for account in each)} grants, {sum(len(a.stale) for a in each)} role requests"
        f" refused as stale; {sum(w.answer == fencing.ACCEPTED for w in writes)} writes accepted,"
        f" {sum(len(account.refusals) for account in each)} messages refused from who was deposed,"
        f" {sum(w.answer == fencing.UNANSWERED for w in writes)} writes not answered;"
        f" {sum(len(account.flushes) for account in each)} flushes,"
        f" {sum(len(fencing.late_flushes(account)) for account in each)} of them on their way when their sender was"
        " deposed"
    )


@pytest.mark.timeout(420 + 6 * COUNT)
def test_two_owners_never_write_to_one_switch(lab: Lab, seed: int) -> None:
    rng = random.Random(seed)
    storm = Storm(lab.spec, random.Random(rng.random()))
    with witness.watching(lab) as watched:
        accounts.wait_until_settled(lab)
        began = time.monotonic()
        with Watch(lab.pods()) as pings, Churn(lab, rng) as churn:
            try:
                past = weather(lab, storm, churn)
                seconds = time.monotonic() - began
            finally:
                partitions.heal_all(lab)
        witness.wait_whole(lab, WHOLE_AGAIN)
        accounts.wait_until_settled(lab)
        healed = time.monotonic() - began - seconds
        told = watched.accounts()
        found = watched.violations(told)
    print(
        f"\nseed {seed}: {sum(bool(one.cuts) for one in past)} partitions in {seconds:.0f} s, all settled"
        f" {healed:.0f} s later; {figures(told)}; {churn.pods} pods made and removed, {churn.declared} declarations,"
        f" {churn.refused} not taken; {len(pings.lost)} of {pings.sent} pings lost"
    )
    assert not found, f"seed {seed}: {found[:20]}"
    assert not pings.lost, f"seed {seed}: {pings.told()}"
    assert all(account.accepted for account in told.values()), "there was something to write"
    assert any(account.changes for account in told.values()), "there were changes of owner"
