# SPDX-License-Identifier: Apache-2.0
"""The lab itself with several etcd members and controllers: any of them can be dead, frozen or cut off."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import grpc
import pytest

from sdn.lab import disks, etcd, faults, mounts, partitions
from sdn.lab.errors import CniError, LabError
from sdn.lab.lab import Lab
from sdn.lab.partitions import Cut
from sdn.lab.waiting import wait_until
from sdn.v1 import inspection_pb2, inspection_pb2_grpc
from tests.lab import accounts, labs, traffic
from tests.lab.watching import Watch

pytestmark = pytest.mark.alone

SDNCTL = [sys.executable, "-m", "sdn.cli.main"]
MEMBERS = {"etcd-1", "etcd-2", "etcd-3"}
CONTROLLERS = ("controller-1", "controller-2", "controller-3")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One controller on three etcd members, and four pods."""
    with labs.running("members", nodes=2, store="etcd", etcd=3) as found:
        labs.add_pods(found, 4, "steady")
        yield found


@pytest.fixture(scope="module")
def several() -> Iterator[Lab]:
    """Three controllers on one etcd member."""
    with labs.running("several", nodes=1, controllers=3, store="etcd") as found:
        yield found


def make_and_delete(lab: Lab, prefix: str) -> None:
    labs.delete_pods(lab, labs.add_pods(lab, 2, prefix, retry_seconds=120))
    accounts.wait_until_settled(lab)


def members(lab: Lab) -> dict[str, etcd.Member]:
    return {member.name: member for member in etcd.members(lab.spec)}


def hears(lab: Lab, source: str, destination: str, family: int, patience: float) -> bool:
    """Whether one machine's datagram arrives at the other."""
    ends = [lab.spec.machine(name) for name in (source, destination)]
    one, other = (machine.ipv6 if family else machine.ipv4 for machine in ends)
    with (
        traffic.udp(ends[0].netns, traffic.family_of(one), one) as sender,
        traffic.udp(ends[1].netns, traffic.family_of(other), other) as receiver,
    ):
        receiver.settimeout(0.1)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            sender.sendto(b"heard?", receiver.getsockname()[:2])
            try:
                return receiver.recv(100) == b"heard?"
            except TimeoutError:
                continue
    return False


def assert_ways(
    lab: Lab, *, through: Sequence[tuple[str, str]] = (), cut: Sequence[tuple[str, str]] = ()
) -> None:
    """What is cut lets nothing through, in both families; what passes may take a while, to find the neighbour."""
    assert [pair for pair in cut for family in (0, 1) if hears(lab, *pair, family, 0.3)] == []
    assert [pair for pair in through for family in (0, 1) if not hears(lab, *pair, family, 30)] == []


def version(lab: Lab, controller: str) -> inspection_pb2.GetVersionResponse:
    with grpc.insecure_channel(lab.server_of(controller)) as channel:
        return inspection_pb2_grpc.DaemonStub(channel).GetVersion(
            inspection_pb2.GetVersionRequest(), timeout=30
        )


def test_every_member_is_there_and_knows_the_same_leader(lab: Lab) -> None:
    found = members(lab)
    assert set(found) == MEMBERS
    assert {member.leader_id for member in found.values()} == {found[etcd.leader(lab.spec)].id}


@pytest.mark.parametrize("way", ["killed", "frozen", "cut off"])
def test_the_cluster_goes_on_when_the_leader_of_the_store_is(lab: Lab, way: str) -> None:
    old = etcd.leader(lab.spec)
    with Watch(lab.pods()) as watch:
        if way == "killed":
            faults.kill_for_good(lab, old)
        elif way == "frozen":
            faults.freeze(lab, old)
        else:
            partitions.cut(lab, old)
        try:
            new = etcd.wait_leader(lab.spec, other_than=[old])
            make_and_delete(lab, way.replace(" ", "-"))
        finally:
            if way == "killed":
                lab.start(old)
            elif way == "frozen":
                faults.thaw(lab, old)
            else:
                partitions.heal(lab, old)
        assert new != old

        def together() -> bool:
            found = members(lab)
            return (
                set(found) == MEMBERS
                and len({member.leader_id for member in found.values()} - {0}) == 1
                and len({member.revision for member in found.values()}) == 1
            )

        # With its data: it is the same member, and has caught up.
        wait_until(together, f"{old} to be one of three again", 60)
        make_and_delete(lab, "again")
    assert watch.sent > 100
    assert not watch.lost, watch.told()


def test_a_member_that_is_restarted_keeps_its_data(lab: Lab) -> None:
    before = members(lab)["etcd-2"]
    lab.restart("etcd-2")
    wait_until(lambda: "etcd-2" in members(lab), "etcd-2 to answer", 60)
    after = members(lab)["etcd-2"]
    assert after.id == before.id
    assert after.revision >= before.revision
    assert after.term >= before.term


def test_without_a_majority_of_the_store_no_pod_is_made_and_packets_go_on(lab: Lab) -> None:
    with Watch(lab.pods()) as watch:
        with faults.store_without_majority(lab) as frozen:
            assert len(frozen) == 2
            wait_until(lambda: not any(m.leader_id for m in members(lab).values()), "the rest to notice", 30)
            with pytest.raises(LabError, match="leads just now"):
                etcd.leader(lab.spec)
            with pytest.raises(CniError) as refused:
                lab.pod_add("early", node="node-1", retry_seconds=0)
            assert refused.value.code == 11
        make_and_delete(lab, "late")
    assert not watch.lost, watch.told()


def test_machines_are_cut_from_each_other_and_healed(lab: Lab) -> None:
    there, back, store = ("controller-1", "node-1"), ("node-1", "controller-1"), ("controller-1", "etcd-1")
    assert_ways(lab, through=[there, back, store])
    with partitions.apart(lab, "controller-1", "node-1"):
        assert_ways(lab, cut=[there, back], through=[store])
        with partitions.apart(lab, "controller-1"):
            assert_ways(lab, cut=[there, back, store], through=[("node-1", "etcd-1")])
        assert_ways(lab, cut=[there, back], through=[store])
    assert_ways(lab, through=[there, back, store])
    partitions.cut_one_way(lab, *there)
    assert_ways(lab, cut=[there], through=[back, store])
    partitions.heal(lab, *back)
    assert_ways(lab, through=[there, back, store])
    partitions.cut(lab, "etcd-1")
    partitions.cut(lab, "etcd-2", "etcd-3", "controller-1")
    partitions.heal(lab, "etcd-3", "node-2")  # never was cut
    partitions.heal_all(lab)
    assert_ways(lab, through=[store, ("etcd-2", "etcd-3"), ("controller-1", "etcd-2")])
    partitions.become(lab, [Cut("controller-1", "node-1"), Cut("etcd-2")])
    assert_ways(lab, cut=[there, ("etcd-2", "etcd-3")], through=[store])
    partitions.become(lab, [Cut("controller-1", "etcd-1"), Cut("etcd-1", "node-1", one_way=True)])
    assert_ways(
        lab, cut=[store, ("etcd-1", "node-1")], through=[there, ("node-1", "etcd-1"), ("etcd-2", "etcd-3")]
    )
    partitions.heal_all(lab)
    assert_ways(lab, through=[store, ("etcd-1", "node-1")])
    with pytest.raises(LabError, match="no machine 'node-9'"):
        partitions.cut(lab, "node-9")
    accounts.wait_until_settled(lab)


def test_tunnels_of_a_node_that_is_cut_off_are_cut_too_and_nobody_is_told(lab: Lab) -> None:
    first, second = (next(pod for pod in lab.pods() if pod.node == node) for node in ("node-1", "node-2"))
    ping = ("ping", "-c1", "-W1", second.addresses[0])
    assert lab.run(first.full_name, *ping).returncode == 0
    with partitions.apart(lab, "node-2"):
        assert lab.run(first.full_name, *ping).returncode != 0
        link = json.loads(lab.run("node-2", "ip", "-j", "link", "show", "eth0").stdout)[0]
        assert "LOWER_UP" in link["flags"]
    wait_until(lambda: lab.run(first.full_name, *ping).returncode == 0, "packets to pass again", 30)
    accounts.wait_until_settled(lab)


def test_a_process_is_killed_for_good_frozen_and_started(lab: Lab) -> None:
    name = "node-1/agent"
    faults.freeze(lab, name)
    with pytest.raises(grpc.RpcError):
        with grpc.insecure_channel(f"unix:{lab.process(name).sockets['grpc']}") as channel:
            inspection_pb2_grpc.DaemonStub(channel).GetVersion(inspection_pb2.GetVersionRequest(), timeout=1)
    faults.kill_for_good(lab, name, "etcd-3")
    faults.kill_for_good(lab, name)
    time.sleep(2)  # the supervisor would have started it again
    assert [lab.process(one).pid for one in (name, "etcd-3")] == [None, None]
    with pytest.raises(LabError, match="node-1/agent does not run just now"):
        faults.freeze(lab, name)
    faults.thaw(lab, name)
    log = lab.log(name).read_text()
    lab.start(name)
    lab.start("etcd-3")
    lab.wait_ready()
    assert '"event":"stopping"' not in log[log.rindex('"event":"ready"') :], "it was killed, not asked to end"
    accounts.wait_until_settled(lab)


def test_several_controllers_serve_each_under_its_name(several: Lab) -> None:
    assert several.serving() == CONTROLLERS
    assert len({several.server_of(name) for name in CONTROLLERS}) == 3
    assert several.servers == tuple(several.server_of(name) for name in CONTROLLERS)
    assert all(version(several, name).version for name in CONTROLLERS)
    with pytest.raises(LabError, match="no controller 'controller-4'"):
        several.server_of("controller-4")


@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_another_controller_is_asked_when_the_first_is(several: Lab, way: str) -> None:
    assert several.server == several.server_of("controller-1")
    if way == "killed":
        faults.kill_for_good(several, "controller-1")
    else:
        faults.freeze(several, "controller-1")
    try:
        assert several.serving() == ("controller-2", "controller-3")
        assert several.server == several.state().server == several.server_of("controller-2")
        shown = subprocess.run(
            [*SDNCTL, "--lab", several.name, "version", "-o", "json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(shown.stdout)["serverName"] == "sdn-controller"
    finally:
        faults.thaw(several, "controller-1")
        several.start("controller-1")
    wait_until(lambda: several.serving() == CONTROLLERS, "all to serve again", 60)


def test_the_disk_of_one_controller_is_full_and_no_other(several: Lab) -> None:
    with pytest.raises(LabError, match="has no small disk"):
        disks.fill(several, "controller-2")
    with pytest.raises(LabError, match="neither a controller nor a member"):
        disks.fill(several, "node-1")
    place = several.folder / "controller-2"
    with disks.small(several, "controller-2", 1):
        wait_until(lambda: several.serving() == CONTROLLERS, "all to serve again", 60)
        assert 0 < disks.fill(several, "controller-2") <= 1 << 20
        with pytest.raises(OSError, match="No space left"):
            (place / "more").write_bytes(b"more")
        (several.folder / "controller-1" / "more").write_bytes(b"more")
        several.kill("controller-2")
        wait_until(lambda: several.serving() == CONTROLLERS, "it to start without a free byte", 60)
        disks.free(several, "controller-2")
        disks.free(several, "controller-2")
        (place / "more").write_bytes(b"more")
    assert str(place) not in mounts.places()
    several.restart("controller-2")
    wait_until(lambda: several.serving() == CONTROLLERS, "all to serve again", 60)
