# SPDX-License-Identifier: Apache-2.0
"""A lab inside the guest, driven as a person would: by `sdnctl`, read through its JSON.

Everything that starts Python in the guest costs seconds there, so commands inside pods go by `ip netns exec`,
with the names that `sdnctl lab status -o json` tells.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.kernel.guest import CommandFailedError, Completed, Guest

NAME = "kq"
TREE = Path(__file__).parents[2]
SDNCTL = Path(sys.executable).with_name("sdnctl")
"""Installed beside the interpreter that runs the tests; the guest sees the same file."""

SLOWNESS = "20"
"""The lab's own time-outs are made for a real machine: SDN_LAB_TIMEOUT_FACTOR."""


@dataclass(frozen=True)
class Place:
    """Somewhere in the lab that commands are run in and packets are sent to."""

    name: str
    node: str
    netns: str
    ipv4: str
    ipv6: str

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to run there."""
        return ["ip", "netns", "exec", self.netns]


class Cluster:
    """The lab named NAME in a guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def sdnctl(self, *arguments: str, timeout: float = 180, echo: bool = False) -> Completed:
        """Run `sdnctl` in the guest; whatever its exit code, what it did is given back."""
        return self.guest.run(
            [str(SDNCTL), *arguments],
            env={
                "SDN_LAB_NAME": NAME,
                "SDN_LAB_TIMEOUT_FACTOR": SLOWNESS,
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            },
            cwd=TREE,
            timeout=timeout,
            echo=echo,
        )

    def up(self, encapsulation: str, pods: Sequence[tuple[str, str]]) -> float:
        """Bring the lab up on the kernel datapath with two nodes, and make pods, each a name and a node.

        Gives the seconds that `lab up` took. Raises CommandFailedError with the ends of the daemons' logs.
        """
        options = ("--nodes", "2", "--datapath", "system", "--encap", encapsulation, "--keep")
        done = self.sdnctl("lab", "up", *options, timeout=600)
        if done.returncode != 0:
            logs = "".join(f"--- {name}\n{self.log(name)}" for name in ("controller-1", "node-1-agent"))
            done = replace(done, stderr=f"{done.stderr}\n{logs}")
        done.check()
        try:
            for pod, node in pods:
                self.sdnctl("lab", "pod", "add", pod, "--node", node).check()
        except CommandFailedError:
            # The next one is to find nothing: one failure is not to be that of all tests.
            self.sdnctl("lab", "down", timeout=300)
            raise
        return done.seconds

    def down(self) -> None:
        """Take the lab down; raises CommandFailedError when it fails, AssertionError when anything is left of
        it."""
        self.sdnctl("lab", "down", timeout=300).check()
        left = self.guest.shell("ip netns list; ls -d /run/sdn-lab/* || true; pgrep -l ovs || true").check()
        assert left.stdout == "", f"left of the lab: {left.stdout}"

    def json(self, *arguments: str, timeout: float = 180) -> Any:
        """What `sdnctl ... -o json` prints, whatever its exit code."""
        done = self.sdnctl(*arguments, "-o", "json", timeout=timeout)
        return json.loads(done.stdout) if done.stdout else done.check()

    def apply(self, documents: Sequence[object]) -> None:
        """Declare objects."""
        self._of_file("apply", documents)

    def delete(self, documents: Sequence[object]) -> None:
        """Remove declared objects; each must be there."""
        self._of_file("delete", documents)

    def _of_file(self, verb: str, documents: Sequence[object]) -> None:
        self.guest.run(["tee", "/tmp/documents.json"], stdin=json.dumps(documents)).check()
        self.sdnctl(verb, "-f", "/tmp/documents.json", timeout=600).check()

    def places(self) -> dict[str, Place]:
        """Pods and machines by name, as the lab tells them."""
        status = self.json("lab", "status")
        found = {}
        for kind in ("pods", "machines"):
            for row in status[kind]:
                ipv4, ipv6 = sorted(row["addresses"], key=lambda address: ":" in address)
                node = row.get("node", row["name"])
                found[row["name"]] = Place(row["name"], node, row["netns"], ipv4, ipv6)
        return found

    def pids(self) -> dict[str, int]:
        """Process ids in the guest of the lab's daemons that run, by name: node-1/agent, controller-1, ..."""
        rows = self.json("lab", "status")["processes"]
        return {row["name"]: row["pid"] for row in rows if row["pid"] is not None}

    def log(self, process: str, lines: int = 200) -> str:
        """The end of a process's log."""
        return self.guest.run(["tail", "-n", str(lines), f"/run/sdn-lab/{NAME}/logs/{process}.log"]).stdout

    def ovs(self, node: str, *command: str, timeout: float = 60) -> str:
        """What one of Open vSwitch's programs prints about the switch of a node."""
        place = f"/run/sdn-lab/{NAME}/{node}"
        variables = dict.fromkeys(("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"), place)
        inside = ["ip", "netns", "exec", f"{NAME}-{node}"]
        return self.guest.run([*inside, *command], env=variables, timeout=timeout).check().stdout
