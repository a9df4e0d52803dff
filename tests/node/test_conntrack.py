# SPDX-License-Identifier: Apache-2.0
"""The kernel forgets UDP connections to a destination, and no others: beside thousands, of both families."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.node.node import ROOT, run

pytestmark = pytest.mark.root

PROGRAM = """
import ipaddress, json, socket, sys
from agent.conntrack import forget_udp

def send(address, port, times):
    kept = []
    for _ in range(times):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        s.sendto(b"x", (address, port))
        kept.append(s)
        if len(kept) == 200:  # no port may be given twice
            for old in kept:
                old.close()
            kept.clear()

def count():
    return int(open("/proc/sys/net/netfilter/nf_conntrack_count").read())

for address in ("192.0.2.1", "2001:db8::1"):
    for port in (53, 54, 55):
        send(address, port, 300)
send("192.0.2.2", 53, 50)
before = count()
told = []
for destinations in json.loads(sys.argv[1]):
    forgotten = forget_udp([(ipaddress.ip_address(a), p) for a, p in destinations])
    after = count()
    told.append((forgotten, before - after))
    before = after
print(json.dumps([told, before]))
"""


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"ag-{os.getpid()}-ct"
    run("ip", "netns", "add", name)
    try:
        for command in ("link set lo up", "addr add 192.0.2.1/24 dev lo", "addr add 192.0.2.2/32 dev lo"):
            run("ip", "-n", name, *command.split())
        run("ip", "-n", name, "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
        # Connections are tracked where a rule asks about them.
        rules = "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }"
        run("ip", "netns", "exec", name, "nft", "-f", "-", stdin=rules.replace("; }", "\n}"))
        yield name
    finally:
        run("ip", "netns", "delete", name)


def test_only_what_was_named_is_forgotten(netns: str) -> None:
    few = [["192.0.2.1", 53], ["2001:db8::1", 54]]
    many = [["192.0.2.1", port] for port in range(55, 155)]
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", PROGRAM, json.dumps([few, many, few])]
    told, left = json.loads(run("ip", "netns", "exec", netns, *command))
    # A sender may by chance have had another's port again, whose connection it then was.
    assert 550 < told[0][0] <= 600
    assert 250 < told[1][0] <= 300
    assert told[2][0] == 0
    assert all(forgotten == fewer for forgotten, fewer in told)
    assert 850 < left <= 950
