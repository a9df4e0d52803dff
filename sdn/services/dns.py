# SPDX-License-Identifier: Apache-2.0
"""The names of a cluster: which DNS records its Services have, and what a question about them is answered.

Source: Kubernetes DNS-Based Service Discovery, schema version 1.1.0 (kubernetes/dns, docs/specification.md):

    NAME.NS.svc.DOMAIN                     A, AAAA      the ClusterIPs; of a headless Service, its endpoints
    HOST.NAME.NS.svc.DOMAIN                A, AAAA      one endpoint of a headless Service
    _PORT._PROTO.NAME.NS.svc.DOMAIN        SRV          each named port; of a headless Service, of each endpoint
    reverse name of a ClusterIP            PTR          NAME.NS.svc.DOMAIN
    reverse name of a headless endpoint    PTR          HOST.NAME.NS.svc.DOMAIN
    NAME.NS.svc.DOMAIN of ExternalName     CNAME        the external name
    dns-version.DOMAIN                     TXT          1.1.0
    A-B-C-D.NS.pod.DOMAIN                  A, AAAA      the address itself, for every namespace (section 2.6)

HOST is the endpoint's hostname, or else its address with "-" for each separator. Beside those the zone has what DNS
itself wants: SOA and NS at its top, and the address of the name server under `ns.dns.DOMAIN`.

Two ways of "no" (RFC 2308): a name that exists, or has names below it, but no record of the type asked for is
answered without error and without a record (NODATA); any other name does not exist (NXDOMAIN). A headless Service
without endpoints does not exist, says the specification. Who has not yet been told of all Services knows of no name
that it does not exist, and says so (SERVFAIL).

Values and an index of them; nothing here reads a packet, a clock or a socket. What of a name stands in the index
depends on one Service only, so that a change costs as much as the Service's own records.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sdn.v1.controller_pb2 import EndpointState, ServiceState

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SCHEMA_VERSION: Final = "1.1.0"
#: Seconds that an answer may be kept. Clients see an endpoint of a headless Service at most this long after its end.
TTL: Final = 30
#: Seconds that "no" may be kept: shorter, so that a Service can be used soon after it was made.
NEGATIVE_TTL: Final = 5
#: A CNAME leads to a CNAME at most so often.
MOST_ALIASES: Final = 8


class Code(enum.IntEnum):
    """RCODEs (RFC 1035, section 4.1.1) that an answer from here can have."""

    NOERROR = 0
    SERVFAIL = 2
    NXDOMAIN = 3


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One resource record; names are lower case and without the last dot, ``data`` is in presentation form (RFC 1035,
    section 5.1).
    """

    name: str
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question is answered.

    ``zone`` is where the SOA record of a "no" stands, empty when there is something to tell. ``elsewhere`` is the name
    outside of the zone at which a chain of CNAMEs ends, and whose records belong into the answer; empty: none.
    """

    code: Code
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    zone: str = ""
    elsewhere: str = ""


def records(state: ServiceState, domain: str) -> tuple[Record, ...]:
    """All records of one Service, each once."""
    own = f"{state.name}.{state.namespace}.svc.{domain}"
    if state.type == "ExternalName":
        return (Record(own, "CNAME", f"{state.external_name.rstrip('.').lower()}."),)
    if state.cluster_ips:
        found = _of_cluster_ip(state, own)
    else:
        found = _of_endpoints(state, own)
    return tuple(dict.fromkeys(found))


def _of_cluster_ip(state: ServiceState, own: str) -> Iterator[Record]:
    for text in state.cluster_ips:
        address = ipaddress.ip_address(text)
        yield _address(own, address)
        yield Record(address.reverse_pointer, "PTR", f"{own}.")
    for port in state.ports:
        if port.name:
            yield _service(port.name, port.protocol, own, port.port, own)


def _of_endpoints(state: ServiceState, own: str) -> Iterator[Record]:
    """Of a headless Service: nothing where it has no endpoint."""
    protocols = {port.name: port.protocol for port in state.ports if port.name}
    for endpoint in state.endpoints:
        address = ipaddress.ip_address(endpoint.address)
        host = f"{host_name(endpoint)}.{own}"
        yield _address(own, address)
        yield _address(host, address)
        yield Record(address.reverse_pointer, "PTR", f"{host}.")
        for name, number in endpoint.ports.items():
            if name in protocols:
                yield _service(name, protocols[name], own, number, host)


def host_name(endpoint: EndpointState) -> str:
    """An endpoint's own label below its Service: its hostname, else its address (10-244-1-5, fd00--5)."""
    return endpoint.hostname.lower() or endpoint.address.lower().replace(".", "-").replace(":", "-")


def _address(name: str, address: Address) -> Record:
    return Record(name, "A" if address.version == 4 else "AAAA", str(address))


def _service(port: str, protocol: str, own: str, number: int, target: str) -> Record:
    """SRV (RFC 2782). All have the same priority and weight: none is better than another."""
    return Record(f"_{port.lower()}._{protocol.lower()}.{own}", "SRV", f"0 100 {number} {target}.")


class Zone:
    """The cluster's domain and the reverse zones of its ranges, as far as Services were told of."""

    def __init__(
        self, domain: str, ranges: Iterable[Network] = (), nameservers: Sequence[Address] = ()
    ) -> None:
        """
        domain       of the cluster, "cluster.local"
        ranges       whose addresses are the cluster's: of pods and of ClusterIPs
        nameservers  addresses of the cluster's DNS
        """
        self.domain = domain.rstrip(".").lower()
        self.complete = False
        self.serial = 1
        self._reverse = _ReverseZones(ranges)
        # Of each name, of each type of record, the data, in the order in which it came.
        self._names: dict[str, dict[str, dict[Record, None]]] = {}
        # Of each name of the domain, how many names stand below it.
        self._below: dict[str, int] = {}
        self._services: dict[tuple[str, str], frozenset[Record]] = {}
        host = f"ns.dns.{self.domain}"
        self._nameserver = host
        for record in (
            Record(self.domain, "NS", f"{host}."),
            Record(f"dns-version.{self.domain}", "TXT", f'"{SCHEMA_VERSION}"'),
            *(_address(host, address) for address in nameservers),
        ):
            self._add(record)
        for name in (self.domain, host, f"svc.{self.domain}", f"pod.{self.domain}"):
            self._names.setdefault(name, {})

    # --- what there is

    def update(self, state: ServiceState) -> None:
        """A Service is new, or changed. ValueError when it has an address that is none; nothing has changed then."""
        found = records(state, self.domain)
        self._replace((state.namespace, state.name), found)

    def remove(self, namespace: str, name: str) -> None:
        """A Service is gone; nothing happens if it never was."""
        self._replace((namespace, name), ())

    def _replace(self, key: tuple[str, str], found: tuple[Record, ...]) -> None:
        before = self._services.get(key, frozenset())
        after = frozenset(found)
        if before == after:
            return
        for record in before - after:
            self._drop(record)
        for record in found:
            if record not in before:
                self._add(record)
        if after:
            self._services[key] = after
        else:
            del self._services[key]
        self.serial += 1

    def _add(self, record: Record) -> None:
        kinds = self._names.get(record.name)
        if kinds is None:
            kinds = self._names[record.name] = {}
            for parent in self._parents(record.name):
                self._below[parent] = self._below.get(parent, 0) + 1
        kinds.setdefault(record.kind, {})[record] = None

    def _drop(self, record: Record) -> None:
        kinds = self._names[record.name]
        del kinds[record.kind][record]
        if not kinds[record.kind]:
            del kinds[record.kind]
        if not kinds:
            del self._names[record.name]
            for parent in self._parents(record.name):
                self._below[parent] -= 1
                if not self._below[parent]:
                    del self._below[parent]

    def _parents(self, name: str) -> Iterator[str]:
        """The names between one of the domain and the domain's own; none for reverse names."""
        end = len(name) - len(self.domain) - 1
        if not name.endswith(f".{self.domain}"):
            return
        while (dot := name.find(".")) < end:
            name = name[dot + 1 :]
            end -= dot + 1
            yield name

    # --- what is answered

    def answer(self, name: str, kind: str) -> Answer | None:
        """The answer to a question for records of a type ("A", "ANY"); None when the name is none of the cluster's.

        ``name`` in any case, with or without the last dot.
        """
        name = name.rstrip(".").lower()
        found: list[Record] = []
        for _alias in range(MOST_ALIASES):
            zone = self._zone_of(name)
            if not zone and name not in self._names:
                break
            here = self._of(name, kind)
            if here is None:
                # Of a chain of CNAMEs, the code is that of its last name (RFC 6604).
                code = Code.NXDOMAIN if self.complete else Code.SERVFAIL
                return Answer(code, tuple(found), zone=zone)
            found += here
            if len(here) == 1 and here[0].kind == "CNAME" and kind not in ("CNAME", "ANY"):
                name = here[0].data.rstrip(".")
                continue
            if not here:
                return Answer(Code.NOERROR, tuple(found), zone=zone)
            return Answer(Code.NOERROR, tuple(found), self._additional(here))
        else:
            return Answer(Code.SERVFAIL)
        return Answer(Code.NOERROR, tuple(found), elsewhere=name) if found else None

    def soa(self, zone: str) -> Record:
        """The record that stands with every "no"; its last number is how long that may be kept."""
        data = f"{self._nameserver}. hostmaster.{self.domain}. {self.serial} 7200 1800 86400 {NEGATIVE_TTL}"
        return Record(zone, "SOA", data)

    def _zone_of(self, name: str) -> str:
        if name == self.domain or name.endswith(f".{self.domain}"):
            return self.domain
        return self._reverse.zone_of(name) if name.endswith(".arpa") else ""

    def _of(self, name: str, kind: str) -> list[Record] | None:
        """Records of a name that is ours: none when there are none of the type; None when there is no such name."""
        if kind == "SOA" and name == self._zone_of(name):
            return [self.soa(name)]
        kinds = self._names.get(name)
        if kinds is None:
            if name in self._below or self._reverse.is_above_names(name):
                return []
            return self._of_pod(name, kind)
        if "CNAME" in kinds:
            return list(kinds["CNAME"])
        if kind == "ANY":
            # One set of records is enough (RFC 8482).
            return list(next(iter(kinds.values()), ()))
        return list(kinds.get(kind, ()))

    def _of_pod(self, name: str, kind: str) -> list[Record] | None:
        label, _, rest = name.partition(".")
        end = f".pod.{self.domain}"
        if not f".{name}".endswith(end) or name == end[1:]:
            return None
        if not rest.endswith(end):
            return []  # a namespace, which has names below it
        if "." in rest[: -len(end)]:
            return None
        address = _from_label(label)
        if address is None:
            return None
        record = _address(name, address)
        return [record] if kind in (record.kind, "ANY") else []

    def _additional(self, found: list[Record]) -> tuple[Record, ...]:
        """The addresses of the names that SRV and NS records lead to."""
        more: list[Record] = []
        for record in found:
            if record.kind in ("SRV", "NS"):
                kinds = self._names.get(record.data.rpartition(" ")[2].rstrip("."), {})
                more += [*kinds.get("A", ()), *kinds.get("AAAA", ())]
        return tuple(dict.fromkeys(more))


def _from_label(label: str) -> Address | None:
    for separator in (".", ":"):
        try:
            return ipaddress.ip_address(label.replace("-", separator))
        except ValueError:
            continue
    return None


class _ReverseZones:
    """Which names below in-addr.arpa and ip6.arpa are the cluster's: those of addresses in its ranges."""

    def __init__(self, ranges: Iterable[Network]) -> None:
        self._zones: set[str] = set()
        for network in ranges:
            # A zone begins at a label: four bits, or eight. A range between two is several zones.
            step = 8 if network.version == 4 else 4
            size = -(-network.prefixlen // step) * step
            labels = size // step
            for part in network.subnets(new_prefix=size):
                pointer = part.network_address.reverse_pointer.split(".")
                self._zones.add(".".join(pointer[len(pointer) - 2 - labels :]))

    def zone_of(self, name: str) -> str:
        """The zone that a reverse name lies in; empty: in none of ours."""
        rest = name
        while rest:
            if rest in self._zones:
                return rest
            rest = rest.partition(".")[2]
        return ""

    def is_above_names(self, name: str) -> bool:
        """Whether it is the name of more than one address: such names are told to exist, whatever is below them."""
        zone = self.zone_of(name)
        if not zone:
            return False
        if name == zone:
            return True
        labels = name.split(".")
        v4 = labels[-2] == "in-addr"
        if len(labels) - 2 >= (4 if v4 else 32):
            return False
        if v4:
            return all(
                label.isdecimal() and int(label) < 256 and label == str(int(label)) for label in labels[:-2]
            )
        return all(len(label) == 1 and label in "0123456789abcdef" for label in labels[:-2])
