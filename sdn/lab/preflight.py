# SPDX-License-Identifier: Apache-2.0
"""What is looked at before anything is made: a lab that cannot come up says so at once, and what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from sdn.lab import clocks, namespaces
from sdn.lab.command import PATH, run
from sdn.lab.errors import LabError
from sdn.lab.spec import LabSpec

PROGRAMS = ("ip", "ethtool", "nft", "ovsdb-server", "ovsdb-tool", "ovs-vswitchd")
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")


def check(spec: LabSpec) -> None:
    """LabError in one line for the first thing that is missing or taken."""
    spec.check()
    check_root()
    programs = (*PROGRAMS, "etcd") if spec.store == "etcd" else PROGRAMS
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    if not missing and not SCHEMA.exists():
        missing = [str(SCHEMA)]
    if missing:
        raise LabError(f"missing on this machine: {', '.join(missing)}; run `make setup`")
    if spec.own_clocks:
        clocks.faketime()
    if importlib.util.find_spec("supervisor") is None:
        raise LabError("the Python package supervisor is missing; run `make setup`")
    for package, program in (("agent", "sdn-agent"), ("controller", "sdn-controller")):
        if importlib.util.find_spec(package) is None:
            raise LabError(f"{program} is not installed beside sdnctl; run `make setup`")
    if spec.datapath == "system" and not Path("/sys/module/openvswitch").exists():
        try:
            run(["modprobe", "openvswitch"])
        except LabError:
            raise LabError(
                "--datapath system needs the kernel module openvswitch, which this kernel lacks; use --datapath netdev"
            ) from None
    taken = [name for name in spec.namespaces if namespaces.exists(name)]
    if taken:
        raise LabError(
            f"network namespace {taken[0]} exists already and is not this lab's; "
            f"remove it (`ip netns del {taken[0]}`) or choose another lab name (--name)"
        )


def check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("a lab needs root, since it makes network namespaces; run it with sudo")


def plugin() -> Path:
    """The CNI plugin as installed with the agent."""
    found = importlib.util.find_spec("agent")
    for place in found.submodule_search_locations or [] if found else []:
        path = Path(place) / "cni" / "sdn-cni"
        if path.exists():
            return path
    raise LabError("the CNI plugin sdn-cni is not installed beside sdnctl; run `make setup`")
