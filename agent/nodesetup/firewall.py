# SPDX-License-Identifier: Apache-2.0
"""nftables of the node: what the node's own stack must not see, and what leaves the cluster.

- The node's ends of pods' links are ports of the switch, which reads their frames before nftables does; what
  then goes up to the node's own IP would be a way around the switch for a pod that writes the port's MAC into
  its frames. One rule by the name's prefix drops it, before connection tracking, for every pod that ever
  comes.
- On the userspace datapath the same holds for the uplink, whose frames br-phy hands up itself: without the
  drop the node would answer everything twice.
- A pod that speaks to an address outside of the cluster borrows the node's address (masquerade). Pods and
  nodes speak to each other untranslated.
- A port of the node that leads to one of its pods (the `portmap` plugin's, for instance) works from pods and
  other nodes too: they appear under the gateway's address, because the pod's answer would otherwise go
  straight to them, past the node that has to translate it back.

All is written as one transaction and named with a digest of itself, so that what is in force is not written
again.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from typing import Final

from agent.nodesetup.facts import GATEWAY_INTERFACE, Assignment, NodeFacts
from agent.state import HOST_PREFIX

_TABLE: Final = "sdn"
_TIMEOUT: Final = 30


class FirewallError(Exception):
    """nft refused the rules or is missing; the text is its own."""


def enforce(facts: NodeFacts, assignment: Assignment) -> bool:
    """Bring the rules into force; whether they were not before."""
    text = rules(facts, assignment)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    families = ["inet", "netdev"] if facts.datapath == "netdev" else ["inet"]
    if all(f'comment "{digest}"' in _list(family) for family in families):
        return False
    # Made first, since only what exists can be deleted; all of it is one transaction.
    reset = "".join(f"table {family} {_TABLE}\ndelete table {family} {_TABLE}\n" for family in families)
    _nft("-f", "-", stdin=reset + text.replace("DIGEST", digest))
    return True


def rules(facts: NodeFacts, assignment: Assignment) -> str:
    """The tables as nft reads them."""
    lines = [
        f"table inet {_TABLE} {{",
        '  comment "DIGEST"',
        "  chain pod-ports {",
        "    type filter hook prerouting priority -450; policy accept;",
        f'    iifname "{HOST_PREFIX}*" drop',
        "  }",
        "  chain leaving {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        *(f"    {rule}" for rule in _masquerade(facts, assignment)),
        "  }",
        "}",
    ]
    if facts.datapath == "netdev":
        lines += [
            f"table netdev {_TABLE} {{",
            '  comment "DIGEST"',
            "  chain uplink {",
            f'    type filter hook ingress device "{facts.uplink}" priority -500; policy drop;',
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _masquerade(facts: NodeFacts, assignment: Assignment) -> list[str]:
    """Two rules a family: what leaves the cluster, and what this node redirected to one of its pods."""
    peers = assignment.peer_addresses()
    found = []
    for network in assignment.ranges():
        version = network.version
        word = "ip" if version == 4 else "ip6"
        cluster = [str(one) for one in assignment.cluster() if one.version == version]
        others = cluster + [str(address) for address in peers if address.version == version]
        inside = others + [str(address) for address in facts.addresses if address.version == version]
        found += [
            f'{word} saddr {network} {word} daddr != {_set(inside)} oifname != "{GATEWAY_INTERFACE}" masquerade',
            f'{word} saddr {_set(others)} oifname "{GATEWAY_INTERFACE}" ct status dnat masquerade',
        ]
    return found


def _set(items: Sequence[str]) -> str:
    return "{ " + ", ".join(sorted(set(items))) + " }"


def _list(family: str) -> str:
    done = _run("nft", "list", "table", family, _TABLE)
    return done.stdout if done.returncode == 0 else ""


def _nft(*arguments: str, stdin: str) -> None:
    done = _run("nft", *arguments, stdin=stdin)
    if done.returncode != 0:
        raise FirewallError(f"nft: {' '.join(done.stderr.split())}")


def _run(*command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise FirewallError(f"nft cannot be run: {problem}") from None
