# SPDX-License-Identifier: Apache-2.0
"""The guest is what the tests of the kernel datapath need: a stock kernel on this machine's programs.

First the harness itself (commands, exit codes, time-outs, nothing written to the host), then the kernel with
plain Open vSwitch commands: bridges on the `system` datapath, each encapsulation, conntrack with NAT. What
fails here is the machine's or the kernel's doing, not our programs'.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.lab import namespaces
from tests.kernel.guest import CommandFailedError, Guest
from tests.kernel.image import Kernel
from tests.kernel.traffic import Transfer, transfer

pytestmark = [pytest.mark.kernel, pytest.mark.root]

HERE = Path(__file__).parent
TWO_NODES = f". {HERE / 'two_nodes.sh'}\n"


def test_the_guest_runs_debians_kernel(guest: Guest, kernel: Kernel) -> None:
    assert guest.run(["uname", "-r"]).check().stdout.strip() == kernel.release


def test_the_guest_reads_this_tree_and_its_writes_stay_inside(guest: Guest) -> None:
    probe = HERE / "written-by-the-guest"
    guest.run(["cp", __file__, str(probe)]).check()
    assert guest.run(["cat", str(probe)]).check().stdout == Path(__file__).read_text()
    assert not probe.exists()


def test_the_guest_sees_no_run_time_state_of_the_host(guest: Guest) -> None:
    with tempfile.NamedTemporaryFile(dir="/run", prefix="sdn-kernel-") as state:
        assert guest.run(["ls", "/run/kernel-test"]).returncode == 0
        assert guest.run(["ls", state.name]).returncode != 0


def test_what_labs_of_the_host_make_and_remove_is_not_below_what_the_guest_makes(guest: Guest) -> None:
    """Else the guest cannot make a folder in one that the host has removed: it is there, and it is not."""
    name = "sdn-kernel-host"
    namespaces.add(name)
    try:
        namespaces.write_resolv_conf(name, "nameserver 192.0.2.7\n")
        assert name not in guest.run(["ls", "/etc/netns"]).check().stdout
    finally:
        namespaces.delete(name)
    assert guest.shell("mkdir /etc/netns/own && rmdir /etc/netns/own").returncode == 0


def test_output_and_exit_code_come_back(guest: Guest) -> None:
    done = guest.run(
        ["sh", "-c", 'echo "$GREETING"; cat; echo wrong >&2; exit 7'], env={"GREETING": "hallo"}, stdin="in"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("hallo\nin", "wrong\n", 7)
    with pytest.raises(CommandFailedError, match="exited with 7"):
        done.check()


def test_a_missing_program_is_told_as_a_shell_does(guest: Guest) -> None:
    done = guest.run(["/no/such/program"])
    assert done.returncode == 127
    assert "/no/such/program" in done.stderr


def test_a_command_out_of_time_is_killed_and_the_guest_lives_on(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "echo begun; sleep 600"], timeout=2)
    assert done.timed_out
    assert done.stdout == "begun\n"
    assert guest.run(["true"]).check().seconds < 60


def test_a_daemon_left_behind_does_not_hold_up_its_command(guest: Guest) -> None:
    done = guest.run(["sh", "-c", "sleep 600 & echo $!"], timeout=120).check()
    assert not done.timed_out
    guest.run(["kill", done.stdout.strip()]).check()


def test_the_kernel_has_what_the_datapath_needs(guest: Guest) -> None:
    modules = (
        "openvswitch vport-geneve vport-vxlan vport-gre nft_masq nft_ct nft_chain_nat veth tun sch_netem sctp"
    )
    guest.shell(f"modprobe -a {modules}").check()
    loaded = guest.run(["lsmod"]).check().stdout
    assert all(f"{module.replace('-', '_')} " in loaded for module in modules.split())


@pytest.fixture(scope="module")
def nodes(guest: Guest) -> Iterator[None]:
    guest.shell(f"{TWO_NODES} two_nodes", timeout=300).check()
    yield
    guest.shell(f"{TWO_NODES} no_nodes").check()


@pytest.mark.usefixtures("nodes")
def test_two_switches_of_the_system_datapath_run_side_by_side(guest: Guest) -> None:
    for node in (1, 2):
        shown = guest.shell(f"{TWO_NODES} in_node {node} ovs-appctl dpctl/show").check().stdout
        assert shown.startswith("system@ovs-system:")
        assert f"pod{node}" in shown


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("encapsulation", ["geneve", "vxlan", "gre"])
def test_pods_reach_each_other_through_the_kernels_tunnels(guest: Guest, encapsulation: str) -> None:
    guest.shell(f"{TWO_NODES} tunnel {encapsulation}").check()
    for address in ("10.99.0.2", "fd99::2"):
        guest.run(["ip", "netns", "exec", "kq-pod-1", "ping", "-c3", "-i0.2", "-w30", address]).check()
    # A stream with the pods' default offloads: the kernel's segmentation goes through the tunnel.
    one, two = (["ip", "netns", "exec", f"kq-pod-{pod}"] for pod in (1, 2))
    assert transfer(guest, one, two, "10.99.0.2", 3_000_000) == Transfer("10.99.0.1", 3_000_000, intact=True)
    assert transfer(guest, one, two, "fd99::2", 3_000_000) == Transfer("fd99::1", 3_000_000, intact=True)
    datagram = transfer(guest, one, two, "10.99.0.2", 9_000, transport="udp")
    assert datagram == Transfer("10.99.0.1", 9_000, intact=True)


@pytest.mark.usefixtures("nodes")
def test_the_kernels_conntrack_translates_addresses(guest: Guest) -> None:
    """10.99.0.77 is a virtual address: conntrack sends it to pod 2 and gives the answers its name."""
    guest.shell(f"{TWO_NODES} tunnel geneve; virtual_address").check()
    guest.run(["ip", "netns", "exec", "kq-pod-1", "ping", "-c3", "-i0.2", "-w30", "10.99.0.77"]).check()
    tracked = guest.shell(f"{TWO_NODES} in_node 1 ovs-appctl dpctl/dump-conntrack zone=9").check().stdout
    assert "orig=(src=10.99.0.1,dst=10.99.0.77" in tracked
    assert "reply=(src=10.99.0.2,dst=10.99.0.1" in tracked
