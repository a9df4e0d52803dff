# SPDX-License-Identifier: Apache-2.0
"""Cutting machines of a lab off: from all others or from some of them, in both directions or in one.

The bridge between the machines drops the frames (nftables, in the underlay's own namespace). So nobody is told: no
interface loses its carrier, no send fails, and open connections fall silent, as when a switch far away fails. ARP, both
families and tunnels are cut alike, also where a node's Open vSwitch takes its frames past the node's own nftables. What
connects processes of one machine stays, and so do the unix sockets through which the lab asks its daemons.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sdn.lab.command import run
from sdn.lab.lab import Lab

_TABLE = "bridge sdn_lab"
#: Safe to repeat: what is in the sets stays, and the rules are replaced in one step.
_RULES = f"""
add table {_TABLE}
add set {_TABLE} alone {{ type ifname; }}
add set {_TABLE} apart {{ typeof meta iifname . meta oifname; }}
add set {_TABLE} unheard {{ typeof meta iifname . meta oifname; }}
add chain {_TABLE} cuts {{ type filter hook forward priority 0; policy accept; }}
flush chain {_TABLE} cuts
add rule {_TABLE} cuts iifname @alone drop
add rule {_TABLE} cuts oifname @alone drop
add rule {_TABLE} cuts iifname . oifname @apart drop
add rule {_TABLE} cuts iifname . oifname @unheard ether type arp accept
add rule {_TABLE} cuts iifname . oifname @unheard icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
add rule {_TABLE} cuts iifname . oifname @unheard drop
"""


class Cut(NamedTuple):
    """What does not pass: between `one` and `other`, in both directions or only what `one` sends; without `other`:
    between `one` and all the rest.
    """

    one: str
    other: str = ""
    one_way: bool = False

    def __str__(self) -> str:
        return f"{self.one} {'->' if self.one_way else '|'} {self.other or 'all'}"


def cut(lab: Lab, machine: str, *others: str) -> None:
    """Nothing passes any more between a machine (controller-2, etcd-1, node-3) and each of `others`; without others:
    between it and all the rest. Safe to repeat. LabError if there is no such machine.
    """
    _apply(lab, [f"add {element}" for element in _elements(lab, machine, others)])


def cut_one_way(lab: Lab, source: str, destination: str) -> None:
    """Nothing of IP passes any more from one machine to the other; what the other one sends arrives.

    They can still resolve each other's addresses. Without that the other one could soon send nothing either.
    """
    _apply(lab, [f"add {_way(lab, 'unheard', source, destination)}"])


def heal(lab: Lab, machine: str, *others: str) -> None:
    """Undo `cut` with the same arguments, and `cut_one_way` between the same machines. No error for what is whole."""
    # An element that is not there cannot be deleted, but it can be added first, all in one step.
    elements = [
        *_elements(lab, machine, others),
        *(_way(lab, "unheard", *pair) for other in others for pair in ((machine, other), (other, machine))),
    ]
    _apply(lab, [f"{verb} {element}" for element in elements for verb in ("add", "delete")])


def heal_all(lab: Lab) -> None:
    """Undo everything."""
    become(lab, ())


def become(lab: Lab, cuts: Iterable[Cut]) -> None:
    """From now on these cuts, and no others, in one step: what was cut and is among them stays cut meanwhile."""
    changes = [f"flush set {_TABLE} {name}" for name in ("alone", "apart", "unheard")]
    for one, other, one_way in cuts:
        if one_way:
            elements = [_way(lab, "unheard", one, other)]
        else:
            elements = _elements(lab, one, (other,) if other else ())
        changes += [f"add {element}" for element in elements]
    _apply(lab, changes)


@contextlib.contextmanager
def apart(lab: Lab, machine: str, *others: str) -> Iterator[None]:
    """As `cut`, for the time of the `with` block."""
    cut(lab, machine, *others)
    try:
        yield
    finally:
        heal(lab, machine, *others)


def _elements(lab: Lab, machine: str, others: tuple[str, ...]) -> list[str]:
    if not others:
        return [f'element {_TABLE} alone {{ "{lab.spec.machine(machine).port}" }}']
    return [_way(lab, "apart", *pair) for other in others for pair in ((machine, other), (other, machine))]


def _way(lab: Lab, kind: str, source: str, destination: str) -> str:
    one, other = (lab.spec.machine(name).port for name in (source, destination))
    return f'element {_TABLE} {kind} {{ "{one}" . "{other}" }}'


def _apply(lab: Lab, changes: list[str]) -> None:
    lines = [*_RULES.splitlines(), *changes]
    run(
        ["ip", "netns", "exec", lab.spec.underlay_netns, "nft", "-f", "-"],
        stdin="".join(f"{line}\n" for line in lines),
    )
