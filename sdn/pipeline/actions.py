# SPDX-License-Identifier: Apache-2.0
"""What a flow does with a packet: a closed set of frozen values, named as ovs-actions(7) names them.

A flow's actions are a tuple of these, applied in order; ``Goto`` and nothing else may come last as an
instruction. An empty tuple drops the packet. Adding an action here means teaching it to ``sdn/openflow``
(wire and text) and to ``sdn/simulator`` (meaning); both are held by tests that go over :data:`ACTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from sdn.pipeline.fields import FIELDS, OFPP_CONTROLLER, OFPP_IN_PORT, OFPP_LOCAL, Field


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet to a port. Sending it back to where it came from takes :data:`IN_PORT`, a plain number
    does nothing.
    """

    port: int


@dataclass(frozen=True, slots=True)
class OutputField:
    """Send the packet to the port whose number a field holds (``output:NXM_NX_REG1[0..15]``)."""

    field: Field
    offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class SetField:
    """Set a field, or with a mask some bits of it (OpenFlow 1.5, section 7.2.6.7)."""

    field: Field
    value: int
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Copy ``bits`` bits from one field to another (``move:SRC[a..b]->DST[c..d]``)."""

    source: Field
    source_offset: int
    destination: Field
    destination_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Decrement the IPv4 TTL or IPv6 hop limit; a packet at 0 or 1 goes no further (RFC 1812, 5.3.1)."""


@dataclass(frozen=True, slots=True)
class GroupAction:
    """Hand the packet to a group."""

    group_id: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look the packet up in another table (also an earlier one), then go on with the next action."""

    table: int
    with_ct: bool = False


@dataclass(frozen=True, slots=True)
class Nat:
    """Address translation by ``ct``. With neither kind the connection's existing translation is applied.

    Addresses are integers of the family that ``ipv6`` says; ports 0 mean any.
    """

    kind: str = ""  # "", "src" or "dst"
    ipv6: bool = False
    address_min: int | None = None
    address_max: int | None = None
    port_min: int = 0
    port_max: int = 0
    random: bool = False


@dataclass(frozen=True, slots=True)
class Ct:
    """Send the packet through the connection tracker (``ct(...)``).

    ``zone`` is a number, or ``zone_field`` names 16 bits of a register that hold it. With ``table`` the
    packet goes on there, tracked; without, the packet is not tracked any further in this pass. ``execute``
    may set ct_mark and ct_label.
    """

    zone: int = 0
    zone_field: tuple[Field, int] | None = None
    commit: bool = False
    force: bool = False
    table: int | None = None
    nat: Nat | None = None
    execute: tuple[SetField | Move, ...] = ()


@dataclass(frozen=True, slots=True)
class LearnMatch:
    """One field of a learned flow's match: a constant, or (``value`` None) what the packet has in the same field."""

    field: Field
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Learn:
    """Make a flow in another table from the packet at hand (``learn(...)``), or refresh it when it is there.

    The learned flow matches ``match`` and sets the fields of ``load`` to their values. Time-outs in seconds. With
    ``delete_learned`` the flows learned with this table and cookie go when the flow that holds this action goes.
    """

    table: int
    priority: int
    cookie: int
    match: tuple[LearnMatch, ...]
    load: tuple[SetField, ...]
    idle_timeout: int = 0
    hard_timeout: int = 0
    delete_learned: bool = True


@dataclass(frozen=True, slots=True)
class Conjunction:
    """This flow is one way to satisfy ``clause`` (1 to ``clauses``) of the conjunction ``id``
    (``conjunction(id,k/n)``); there are 2 to 64 clauses. A flow that has one has nothing but such actions. When
    flows of one table and priority satisfy all clauses of a conjunction, the packet is looked up again in that table
    with the field conj_id set to its number (ovs-fields(7), "Conjunctive Match Fields"; ``conjunction.py`` and
    ``lookup.py`` in ``sdn/simulator`` say what exactly Open vSwitch does). One flow alone cannot be all clauses.

    The order of several means nothing, but a switch keeps it, and keeps duplicates: whoever makes flows that are
    compared as bytes gives them in one order, the lowest ``id`` first. 4,080 fit into one flow; a switch does not
    describe a flow of more, so the codec refuses it.
    """

    id: int
    clause: int
    clauses: int


@dataclass(frozen=True, slots=True)
class Goto:
    """Continue in a later table (the goto-table instruction: forward only, and always last)."""

    table: int


Action: TypeAlias = (
    Output | OutputField | SetField | Move | DecTtl | GroupAction | Resubmit | Ct | Learn | Conjunction | Goto
)
ACTIONS: tuple[type, ...] = (
    Output,
    OutputField,
    SetField,
    Move,
    DecTtl,
    GroupAction,
    Resubmit,
    Ct,
    Learn,
    Conjunction,
    Goto,
)

IN_PORT = Output(OFPP_IN_PORT)
LOCAL = Output(OFPP_LOCAL)
CONTROLLER = Output(OFPP_CONTROLLER)


def set_field(**values: int | str) -> SetField:
    """``set_field(eth_dst="0a:58:...")``: one field by name, its value as for a match, with an optional mask.

    Raises ValueError naming the field.
    """
    if len(values) != 1:
        raise ValueError(f"set_field takes one field, got {', '.join(values) or 'none'}")
    name, raw = next(iter(values.items()))
    target = FIELDS.get(name)
    if target is None:
        raise ValueError(f"unknown field {name!r}")
    value, mask = target.parse(raw)
    return SetField(target, value, mask)


def move(source: str, destination: str) -> Move:
    """Copy one whole field to another of the same width, by name. Raises ValueError when widths differ."""
    src, dst = FIELDS[source], FIELDS[destination]
    if src.bits != dst.bits:
        raise ValueError(f"move {source} ({src.bits} bits) to {destination} ({dst.bits} bits): widths differ")
    return Move(src, 0, dst, 0, src.bits)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One choice of a group. ``bucket_id`` stays with the endpoint for its life, so that it can be removed
    alone.
    """

    bucket_id: int
    actions: tuple[Action, ...]
    weight: int = 1
    watch_port: int | None = field(default=None)
