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

- A NodePort leads into the switch: its destination becomes an address that only the switch has, its source
  stays, also for the node's own processes. An externalIP that is the node's own address likewise. What comes
  out of the switch is left alone: it has been there.
- The switch shows the hairpin address to a server that would answer past it. On the node that address becomes
  the node's own, whether the server is here or somewhere else.
- Answers of the node's servers to clients whose address was kept go back by the switch (`returning`).

All is written as one transaction and named with a digest of itself, so that what is in force is not written
again. Which ports are NodePorts is in sets, outside of that digest: `serve` changes single elements, and a
transaction that writes the tables anew writes the elements too.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import subprocess
from collections.abc import Sequence
from typing import Final

from agent import ipam
from agent.ipam import Address
from agent.nodesetup import returning
from agent.nodesetup.facts import GATEWAY_INTERFACE, Assignment, NodeFacts
from agent.nodesetup.frontends import Frontends, NodePort, OwnAddress
from agent.state import HOST_PREFIX
from sdn.pipeline.registers import HAIRPIN_ADDRESS, NODE_PORT_ADDRESS

_TABLE: Final = "sdn"
_TIMEOUT: Final = 30
_WORD: Final = {4: "ip", 6: "ip6"}
_NOTHING: Final = Frontends()


class FirewallError(Exception):
    """nft refused the rules or is missing; the text is its own."""


#: What the sets hold.
Served = NodePort | OwnAddress


def enforce(facts: NodeFacts, assignment: Assignment, frontends: Frontends = _NOTHING) -> frozenset[Served]:
    """Bring the rules and what the sets hold into force; what in the sets was not as it should be."""
    text = rules(facts, assignment)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    families = ["inet", "netdev"] if facts.datapath == "netdev" else ["inet"]
    wanted = _served(frontends)
    present = _present()
    if all(f'comment "{digest}"' in _list(family) for family in families):
        changes = _changes(present, wanted)
    else:
        # Made first, since only what exists can be deleted; all of it is one transaction.
        reset = [f"table {family} {_TABLE}\ndelete table {family} {_TABLE}\n" for family in families]
        changes = "".join(reset) + text.replace("DIGEST", digest) + _changes(frozenset(), wanted)
    if changes:
        _nft("-f", "-", stdin=changes)
    return present ^ wanted


def serve(before: Frontends, after: Frontends) -> frozenset[Served]:
    """Change the sets from what is in force to what is wanted, in one transaction; what changes by that.

    FirewallError when the sets do not hold what was thought: `enforce` repairs that.
    """
    changes = _changes(_served(before), _served(after))
    if changes:
        _nft("-f", "-", stdin=changes)
    return _served(before) ^ _served(after)


def rules(facts: NodeFacts, assignment: Assignment) -> str:
    """The tables as nft reads them, their sets empty."""
    own: dict[int, Address] = {address.version: address for address in facts.addresses}
    lines = [
        f"table inet {_TABLE} {{",
        '  comment "DIGEST"',
    ]
    for version in (4, 6):
        lines += [
            *_block(f"set node-ports-{version}", "type inet_proto . inet_service;"),
            *_block(f"set own-addresses-{version}", f"type ipv{version}_addr . inet_proto . inet_service;"),
        ]
    to_switch = _to_switch(own)
    lines += [
        *_block(
            "chain pod-ports",
            "type filter hook prerouting priority -450; policy accept;",
            f'iifname "{HOST_PREFIX}*" drop',
            *_pods_side(assignment),
        ),
        *_block("chain to-switch", *to_switch),
        *_block(
            "chain to-switch-arriving",
            "type nat hook prerouting priority -100; policy accept;",
            f'iifname != "{GATEWAY_INTERFACE}" jump to-switch',
        ),
        *_block(
            "chain to-switch-own", "type nat hook output priority -100; policy accept;", "jump to-switch"
        ),
        *_block(
            "chain kept-sources",
            "type filter hook prerouting priority -150; policy accept;",
            # The kernel datapath hands back the node's own answers with the mark that led them into the switch.
            f'iifname "{GATEWAY_INTERFACE}" meta mark set meta mark & {~returning.MARK & 0xFFFFFFFF:#x}',
            *_mark(own, assignment),
        ),
        *_block(
            "chain returning",
            "type route hook output priority -150; policy accept;",
            f"ct direction reply ct mark & {returning.MARK:#x} != 0 meta mark set meta mark | {returning.MARK:#x}",
        ),
        *_block(
            "chain hairpin",
            "type nat hook input priority 100; policy accept;",
            *(
                f'iifname "{GATEWAY_INTERFACE}" {_WORD[v]} saddr {_fixed(HAIRPIN_ADDRESS, v)} snat {_WORD[v]} to {a}'
                for v, a in own.items()
            ),
        ),
        *_block(
            "chain leaving",
            "type nat hook postrouting priority srcnat; policy accept;",
            *_masquerade(facts, assignment),
        ),
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


def _block(head: str, *lines: str) -> list[str]:
    return [f"  {head} {{", *(f"    {line}" for line in lines), "  }"]


def _pods_side(assignment: Assignment) -> list[str]:
    """The gateway's addresses are the pods': Linux would answer on them whatever link a packet came by, and what
    is served there (the cluster's DNS) would be open to the node's neighbours.
    """
    return [
        f'iifname != {{ "{GATEWAY_INTERFACE}", "lo" }} {_WORD[one.version]} daddr {ipam.gateway(one)} drop'
        for one in assignment.ranges()
    ]


def _to_switch(own: dict[int, Address]) -> list[str]:
    found = []
    for version, address in own.items():
        word, there = _WORD[version], _fixed(NODE_PORT_ADDRESS, version)
        found += [
            f"{word} daddr {address} meta l4proto . th dport @node-ports-{version} dnat {word} to {there}",
            f"{word} daddr . meta l4proto . th dport @own-addresses-{version} dnat {word} to {there}",
        ]
    return found


def _mark(own: dict[int, Address], assignment: Assignment) -> list[str]:
    """Connections to the node itself that come out of the switch from neither a pod nor the hairpin address."""
    found = []
    for version, address in own.items():
        pods = [str(network) for network in assignment.cluster() if network.version == version]
        known = _set([*pods, _fixed(HAIRPIN_ADDRESS, version)])
        found.append(
            f'iifname "{GATEWAY_INTERFACE}" ct state new {_WORD[version]} saddr != {known} '
            f"{_WORD[version]} daddr {address} ct mark set ct mark | {returning.MARK:#x}"
        )
    return found


def _fixed(numbers: dict[int, int], version: int) -> str:
    number = numbers[version]
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def _masquerade(facts: NodeFacts, assignment: Assignment) -> list[str]:
    """Of each family: what leaves the cluster, what this node redirected to one of its pods, and what a server
    elsewhere must answer to this node. An own redirection into the switch (a NodePort) keeps its source.
    """
    peers = assignment.peer_addresses()
    found = []
    for network in assignment.ranges():
        version = network.version
        word = _WORD[version]
        cluster = [str(one) for one in assignment.cluster() if one.version == version]
        others = cluster + [str(address) for address in peers if address.version == version]
        inside = others + [str(address) for address in facts.addresses if address.version == version]
        found += [
            f'{word} saddr {network} {word} daddr != {_set(inside)} oifname != "{GATEWAY_INTERFACE}" masquerade',
            f"{word} saddr {_set(others)} {word} daddr != {_fixed(NODE_PORT_ADDRESS, version)} "
            f'oifname "{GATEWAY_INTERFACE}" ct status dnat masquerade',
        ]
    for address in facts.addresses:
        hairpin = _fixed(HAIRPIN_ADDRESS, address.version)
        found.append(f'{_WORD[address.version]} saddr {hairpin} oifname != "{GATEWAY_INTERFACE}" masquerade')
    return found


def _set(items: Sequence[str]) -> str:
    return "{ " + ", ".join(sorted(set(items))) + " }"


def _served(frontends: Frontends) -> frozenset[Served]:
    return frozenset[Served](frontends.node_ports) | frontends.own_addresses


def _element(item: Served) -> tuple[str, str]:
    """(name of the set, element as nft writes it)"""
    if isinstance(item, NodePort):
        return f"node-ports-{item.version}", f"{item.protocol} . {item.port}"
    return f"own-addresses-{item.address.version}", f"{item.address} . {item.protocol} . {item.port}"


def _changes(before: frozenset[Served], after: frozenset[Served]) -> str:
    """Commands that lead from one content of the sets to another."""
    lines = []
    for verb, items in (("delete", before - after), ("add", after - before)):
        elements: dict[str, list[str]] = {}
        for item in items:
            name, element = _element(item)
            elements.setdefault(name, []).append(element)
        lines += [
            f"{verb} element inet {_TABLE} {name} {_set(listed)}\n"
            for name, listed in sorted(elements.items())
        ]
    return "".join(lines)


def _present() -> frozenset[Served]:
    """What the sets hold now; nothing where there are none."""
    found: set[Served] = set()
    done = _run("nft", "-j", "list", "table", "inet", _TABLE)
    for item in json.loads(done.stdout)["nftables"] if done.returncode == 0 else []:
        held = item.get("set", {})
        for element in held.get("elem", []):
            *address, protocol, port = element["concat"]
            if address:
                found.add(OwnAddress(ipaddress.ip_address(address[0]), str(protocol), int(port)))
            else:
                found.add(NodePort(int(held["name"][-1]), str(protocol), int(port)))
    return frozenset(found)


def _list(family: str) -> str:
    done = _run("nft", "-t", "list", "table", family, _TABLE)
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
