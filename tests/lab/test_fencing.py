# SPDX-License-Identifier: Apache-2.0
"""An owner that was frozen beyond its lease, and goes on where it stood, is refused by the switch itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import grpc
import pytest

from sdn.lab import faults
from sdn.lab.lab import Lab
from sdn.lab.programs import OPENFLOW_PORT
from sdn.lab.waiting import patience, wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import accounts, labs, witness
from tests.lab import service_objects as objects
from tests.lab.fencing import IS_SECONDARY, SECONDARY, Write
from tests.lab.witness import Witness

pytestmark = pytest.mark.alone

TIMES: Final = 3
LEASE: Final = 5.0
"""Seconds: what `lease_seconds` is by default."""
#: Open vSwitch gives a connection up after ten seconds of silence. A frozen owner whose connection has gone could not
#: write, so it goes on before.
FROZEN: Final = LEASE + 1.5
BUNDLE: Final = 200
"""Bytes; more than the few of an echo."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with labs.running("fencing", nodes=3, controllers=3, store="etcd", etcd=3) as found:
        labs.add_pods(found, 3, "steady")
        yield found


@pytest.fixture(scope="module")
def watched(lab: Lab) -> Iterator[Witness]:
    with witness.watching(lab) as found:
        yield found


def declare(lab: Lab, name: str) -> None:
    """A Service with an endpoint: every node's switch has to get something."""
    address = lab.pod("steady-1").addresses[0]
    objects.apply(
        lab,
        objects.service(name, [objects.port(80)]),
        objects.endpoint_slice(name, "IPv4", [{"addresses": [address]}], [{"name": "tcp-80", "port": 80}]),
    )


def owner_of(lab: Lab, node: str) -> str:
    """Empty: nobody who answers."""
    switch = lab.switches().get(node)
    return switch.owner if switch is not None else ""


def claims(lab: Lab, controller: str, node: str) -> bool:
    """Whether a controller takes the node's switch for its own."""
    request = inspection_pb2.ListSwitchesRequest(own_only=True)
    with grpc.insecure_channel(lab.server_of(controller)) as channel:
        answer = inspection_pb2_grpc.InspectionStub(channel).ListSwitches(request, timeout=patience(10))
    return node in {switch.node for switch in answer.switches}


def unacknowledged(lab: Lab, controller: str, node: str) -> int:
    """Bytes that a controller has written to a switch, and that have not arrived."""
    address = lab.spec.machine(node).ipv4
    shown = lab.run(
        controller, "ss", "-Htn", "state", "established", f"sport = :{OPENFLOW_PORT}", "dst", address
    )
    assert shown.returncode == 0, shown.stderr
    # Recv-Q, Send-Q, both ends.
    return sum(int(line.split()[1]) for line in shown.stdout.splitlines())


def wait_taken(lab: Lab, node: str, victim: str) -> None:
    """Until another controller owns the node."""
    wait_until(lambda: owner_of(lab, node) not in ("", victim), f"another to own {node}", 30)


def frozen_in_a_bundle(lab: Lab, watched: Witness, node: str, name: str) -> Write | None:
    """Freeze a node's owner between two parts of a bundle, and let it go on after its lease; what it wrote then, that
    was refused. None: its connection had gone.
    """
    victim = lab.switches()[node].owner
    connection = watched.connection_to(victim)
    with faults.frozen(lab, f"{node}/ovs-vswitchd"):
        declare(lab, name)
        wait_until(lambda: unacknowledged(lab, victim, node) > BUNDLE, f"{victim} to write to {node}", 30)
        faults.freeze(lab, victim)
    try:
        began = time.monotonic()
        wait_taken(lab, node, victim)
        time.sleep(max(0.0, began + FROZEN - time.monotonic()))
        before = watched.accounts()[node]
        assert before.grants[-1].connection != connection, "another controller is the master"
    finally:
        faults.thaw(lab, victim)

    def told() -> bool:
        now = watched.accounts()[node]
        return (
            len(now.refusals) > len(before.refusals)
            or now.connected[connection] > before.connected[connection]
        )

    wait_until(told, f"the switch of {node} to refuse something, or to connect anew", 30)
    after = watched.accounts()[node]
    assert [write for write in after.accepted if write.connection == connection] == [
        write for write in before.accepted if write.connection == connection
    ]
    refused = {(each.connection, each.xid) for each in after.refusals[len(before.refusals) :]}
    found = [write for write in after.writes if (write.connection, write.xid) in refused]
    assert bool(refused) == bool(found)
    if not found:
        return None
    generation = before.grants[-1].generation
    print(
        f"\n{victim} was frozen, and the switch has a master with generation {generation}: {found[0]}",
        flush=True,
    )
    wait_until(lambda: not claims(lab, victim, node), f"{victim} to learn of it", 30)
    assert found[0].connection == connection
    return found[0]


def test_who_is_frozen_in_the_midst_of_a_write_and_goes_on_after_its_lease_is_refused(
    lab: Lab, watched: Witness
) -> None:
    """The switch stands still for a moment, so that the owner is sure to be between two parts of a bundle when it is
    frozen: it has sent all changes, and waits for a word to put them in force. That word is there when it goes on, and
    is the first thing that its writing thread sees; what it then writes it writes as the owner that it was.
    """
    refused: list[Write] = []
    for number in range(3 * TIMES):
        witness.wait_whole(lab)
        found = frozen_in_a_bundle(lab, watched, f"node-{1 + number % 3}", f"fenced-{number}")
        refused += [found] if found is not None else []
        if len(refused) == TIMES:
            break
    assert [(write.role, write.answer) for write in refused] == [(SECONDARY, IS_SECONDARY)] * TIMES
    accounts.wait_until_settled(lab)
    assert watched.violations(watched.accounts()) == []


def test_who_is_frozen_with_work_to_come_changes_nothing_when_it_goes_on(lab: Lab, watched: Witness) -> None:
    """Whatever it meets first: what others have declared meanwhile, flows that somebody has deleted, of which its
    switch told it before it was deposed, the end of its lease, or that it was deposed.
    """
    for number in range(TIMES):
        witness.wait_whole(lab)
        node = f"node-{1 + number % 3}"
        victim = lab.switches()[node].owner
        connection = watched.connection_to(victim)
        with faults.frozen(lab, victim):
            deleted = lab.run(node, "ovs-ofctl", "-O", "OpenFlow15", "del-flows", "br-int", "table=21")
            assert deleted.returncode == 0, deleted.stderr
            declare(lab, f"work-{number}")
            wait_taken(lab, node, victim)
            lab.pod_add("late", node=node)
            time.sleep(FROZEN)
            before = watched.accounts()[node]
            assert before.grants[-1].connection != connection, "another controller is the master"
        lab.pod_delete("late")
        accounts.wait_until_settled(lab)
        after = watched.accounts()[node]
        if all(grant.connection != connection for grant in after.grants[len(before.grants) :]):
            since = after.accepted[len(before.accepted) :]
            assert all(write.connection != connection for write in since)
    assert watched.violations(watched.accounts()) == []
