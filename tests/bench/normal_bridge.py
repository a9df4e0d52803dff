# SPDX-License-Identifier: Apache-2.0
"""The peer of the throughput benchmark: the same switch process and datapath, one flow that says NORMAL.

Its two ends are treated as the agent treats pods (same MTU, checksum offload off in the pod, the host's
stack kept from seeing the packets a second time), so that what differs is the pipeline and nothing else.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import netns

BRIDGE: Final = "br-normal"
TABLE: Final = "bench"


@dataclass(frozen=True)
class Ends:
    """Two network namespaces on the bridge, and the addresses of the second."""

    client: str
    server: str
    addresses: tuple[str, ...]


@contextmanager
def normal_bridge(node: str, database: Path, datapath: str, mtu: int, prefix: str) -> Iterator[Ends]:
    """Adds the bridge to the switch of a node and removes it again.

    node      network namespace of the node
    database  socket of its ovsdb-server
    datapath  "netdev" or "system", as the node's other bridges
    mtu       bytes, as the pods have
    prefix    of the names of the namespaces that are made
    """
    folder = database.parent
    vsctl = ["ovs-vsctl", f"--db=unix:{database}", "--timeout=60"]
    ends = (f"{prefix}-a", f"{prefix}-b")
    with ExitStack() as stack:
        for end in ends:
            stack.enter_context(netns.namespace(end))
        stack.callback(_run, node, [*vsctl, "--if-exists", "del-br", BRIDGE])
        _run(
            node,
            [
                *(*vsctl, "add-br", BRIDGE, "--", "set", "bridge", BRIDGE),
                *(f"datapath_type={datapath}", "fail_mode=secure", "protocols=OpenFlow15"),
            ],
        )
        stack.callback(_run, node, ["nft", "delete", "table", "netdev", TABLE])
        _run(node, ["nft", "add", "table", "netdev", TABLE])
        for number, end in enumerate(ends, start=1):
            port = f"bench{number}"
            # Deleting the namespace deletes the pair.
            _run(node, ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", end])
            _run(node, ["sysctl", "-qw", f"net.ipv6.conf.{port}.disable_ipv6=1"])
            _run(node, ["ip", "link", "set", port, "mtu", str(mtu), "up"])
            if datapath == "netdev":
                chain = f"{{ type filter hook ingress device {port} priority 0; policy drop; }}"
                _run(node, ["nft", "add", "chain", "netdev", TABLE, port, chain])
            _run(end, ["ip", "link", "set", "eth0", "mtu", str(mtu), "up"])
            _run(end, ["ethtool", "-K", "eth0", "tx", "off"])
            _run(end, ["ip", "address", "add", f"192.0.2.{number}/24", "dev", "eth0"])
            _run(end, ["ip", "address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad"])
            _run(node, [*vsctl, "add-port", BRIDGE, port])
        management = f"unix:{folder / BRIDGE}.mgmt"
        _run(node, ["ovs-ofctl", "-O", "OpenFlow15", "add-flow", management, "actions=NORMAL"])
        yield Ends(*ends, addresses=("192.0.2.2", "2001:db8::2"))


def _run(namespace: str, command: list[str]) -> str:
    with netns.entered(namespace):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"in {namespace}: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
