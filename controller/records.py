# SPDX-License-Identifier: Apache-2.0
"""Facts as they are stored: registered nodes, attachments, reserved ranges, what Services were given; and the
keys they are stored under.

Values are JSON, so that an operator can read a store with the tools of the store. Unknown fields are ignored
when reading: a newer controller may have written them.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from controller.store import Entry

#: Everything of ours.
ROOT = "/sdn/"
NODES = "/sdn/nodes/"
ATTACHMENTS = "/sdn/attachments/"
RANGES = "/sdn/ranges/"
OBJECTS = "/sdn/objects/"
SERVICE_NUMBERS = "/sdn/service-numbers/"
LB_ADDRESSES = "/sdn/load-balancer-addresses/"
#: Names that policies allow connections to, with the addresses that the DNS gave for them.
DOMAINS = "/sdn/domains/"
#: Nodes whose agent or switch has been away for long: their names, no value.
ABSENT_NODES = "/sdn/absent-nodes/"
#: Controllers that are there, each under its lease; those that another one found silent; and whose each switch is.
MEMBERS = "/sdn/controllers/"
DOWN = "/sdn/down/"
OWNERS = "/sdn/owners/"
#: Written by every change that gives something away which nobody else may have; no value.
SEQUENCE = "/sdn/sequence"

#: Kinds of records, each behind what it refers to: in this order changes are taken in whose own order is not known.
_ORDER = (
    MEMBERS,
    DOWN,
    NODES,
    OWNERS,
    ABSENT_NODES,
    SERVICE_NUMBERS,
    LB_ADDRESSES,
    OBJECTS,
    DOMAINS,
    ATTACHMENTS,
)

T = TypeVar("T", bound=msgspec.Struct)


def order_of(key: str) -> int:
    """A key's place among others that changed: what it refers to comes before it, and goes after it."""
    return next((place for place, prefix in enumerate(_ORDER) if key.startswith(prefix)), len(_ORDER))


class CorruptRecordError(Exception):
    """The value that is stored under ``key`` is not what belongs there; the text names the key."""

    def __init__(self, key: str, problem: object) -> None:
        super().__init__(f"store: the value of {key} cannot be read: {problem}")
        self.key = key


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A registered node; the fields are those of NodeInfo in types.proto."""

    name: str
    uid: str
    addresses: tuple[str, ...]
    tunnel_address: str
    tunnel_mac: str
    encapsulation: str
    datapath: str
    datapath_id: int
    pod_ranges: tuple[str, ...]
    mtu: int = 0
    agent_version: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class AttachmentRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A pod's interface on a node; the fields are those of Attachment in types.proto. ``created_at`` is RFC
    3339 text.
    """

    node: str
    container_id: str
    interface_name: str
    pod_namespace: str
    pod_name: str
    ofport: int
    mac: str
    addresses: tuple[str, ...]
    pod_uid: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    host_interface: str = ""
    netns: str = ""
    created_at: str = ""

    @property
    def id(self) -> tuple[str, str]:
        """What tells attachments of one node apart."""
        return self.container_id, self.interface_name

    def __str__(self) -> str:
        return f"attachment {self.container_id}/{self.interface_name} of pod {self.pod_namespace}/{self.pod_name}"


class StoredAttachment(AttachmentRecord, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An attachment as it is stored: ``pending`` until its switch has confirmed it."""

    pending: bool = False


class MemberRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A controller that is there. ``incarnation`` is another one at each start; ``pipeline`` is the version of what it
    programs; ``started_at`` is RFC 3339 text; ``alike`` are the settings that all must have alike, as one writes them,
    of an older build none.
    """

    name: str
    incarnation: str
    grpc_address: str
    openflow_target: str
    peers_address: str
    version: str
    pipeline: int
    draining: bool = False
    started_at: str = ""
    alike: dict[str, str] = {}

    def differing(self, other: MemberRecord) -> dict[str, str]:
        """By name, settings that another one should have like this one, and has not: what it has. Of those that both
        know: in the midst of an upgrade one build may have more of them.
        """
        return {name: text for name, text in other.alike.items() if self.alike.get(name, text) != text}


class DownRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A controller that another one, ``by``, found silent; counts for that ``incarnation`` only. ``at`` is RFC 3339
    text.
    """

    incarnation: str
    by: str
    at: str = ""


class OwnerRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whose a node's switch is. The revision at which this was written, and ``base`` above it, is the owner's
    generation: so it is above what the switch has seen also when the store begins anew with low revisions.
    """

    controller: str
    incarnation: str
    base: int = 0

    def is_of(self, controller: str, incarnation: str) -> bool:
        """Whether this start of this controller is the owner."""
        return (self.controller, self.incarnation) == (controller, incarnation)


class RangeRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A range of pod addresses that is taken."""

    node: str


class NumberRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A Service's number, which its groups are numbered from (sdn/pipeline/service.py)."""

    number: int


class AddressesRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """LoadBalancer addresses that a Service has from the pool, at most one a family."""

    addresses: tuple[str, ...]


class DomainRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Addresses of a name, each with the time (Unix, seconds) until which it counts, or a little later."""

    addresses: dict[str, float]


def node_key(name: str) -> str:
    return f"{NODES}{name}"


def absent_key(node: str) -> str:
    return f"{ABSENT_NODES}{node}"


def attachment_key(node: str, container_id: str, interface_name: str) -> str:
    return f"{ATTACHMENTS}{node}/{container_id}/{interface_name}"


def range_key(text: str) -> str:
    """The key that reserves a range: "10.244.1.0/24" under "/sdn/ranges/10.244.1.0_24"."""
    return f"{RANGES}{text.replace('/', '_')}"


def object_key(kind: str, namespace: str, name: str) -> str:
    return f"{OBJECTS}{kind}/{namespace}/{name}"


def number_key(namespace: str, name: str) -> str:
    return f"{SERVICE_NUMBERS}{namespace}/{name}"


def addresses_key(namespace: str, name: str) -> str:
    return f"{LB_ADDRESSES}{namespace}/{name}"


def domain_key(name: str) -> str:
    return f"{DOMAINS}{name}"


def member_key(controller: str) -> str:
    return f"{MEMBERS}{controller}"


def down_key(controller: str) -> str:
    return f"{DOWN}{controller}"


def owner_key(node: str) -> str:
    return f"{OWNERS}{node}"


def encode_attachment(record: AttachmentRecord, *, pending: bool) -> bytes:
    return encode(StoredAttachment(**_fields(record), pending=pending))


def decode_attachment(entry: Entry) -> tuple[AttachmentRecord, bool]:
    """An attachment, and whether its switch has still to confirm it. CorruptRecordError names the key."""
    stored = decode(StoredAttachment, entry)
    fields = _fields(stored)
    pending: bool = fields.pop("pending")
    return AttachmentRecord(**fields), pending


def _fields(record: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}


def encode(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record)


def decode(kind: type[T], entry: Entry) -> T:
    """The record in a store's entry. CorruptRecordError names the key."""
    try:
        return msgspec.json.decode(entry.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise CorruptRecordError(entry.key, problem) from None
