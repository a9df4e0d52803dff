# SPDX-License-Identifier: Apache-2.0
"""What must outlive the agent, in one SQLite file: attachments with their addresses, and what the node was told.

An attachment's record is committed before anything of it is made and removed after everything of it is gone,
so that whatever is found on the node after a crash has a record, or is not ours. The file is in WAL mode and
synchronized at checkpoints only: a killed agent loses nothing, since the kernel has the pages; after a power
cut the last records may be missing, but then so are the namespaces of their pods.

One connection, one lock: the file is the agent's alone and each transaction takes well under a millisecond.
Since nobody shares it, SQLite needs no file of shared memory beside it, which could not be made on a full disk: an
agent that starts then must still come so far that a switch gets its flows back (`agent.alone`).
"""

from __future__ import annotations

import ipaddress
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from agent import ipam
from agent.ipam import Address, Network
from sdn.pipeline.registers import FIRST_POD_PORT, LAST_POD_PORT

T = TypeVar("T")

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE cursor (pool TEXT PRIMARY KEY, last TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE attachment (
    container_id TEXT NOT NULL,
    ifname TEXT NOT NULL,
    network TEXT NOT NULL,
    netns TEXT NOT NULL,
    pod_namespace TEXT NOT NULL,
    pod_name TEXT NOT NULL,
    pod_uid TEXT NOT NULL,
    ipv4 TEXT UNIQUE,
    ipv6 TEXT UNIQUE,
    mac TEXT NOT NULL UNIQUE,
    ofport INTEGER NOT NULL UNIQUE,
    mtu INTEGER NOT NULL,
    labels TEXT NOT NULL,
    created_at REAL NOT NULL,
    phase TEXT NOT NULL,
    PRIMARY KEY (container_id, ifname)
) WITHOUT ROWID;
"""
_COLUMNS: Final = (
    "container_id, ifname, network, netns, pod_namespace, pod_name, pod_uid, ipv4, ipv6, mac, ofport, mtu, labels,"
    " created_at, phase"
)

#: Phases of an attachment: being made; in use; being removed.
MAKING, READY, REMOVING = "making", "ready", "removing"


class StateError(OSError):
    """The state cannot be read or written (the disk is full, for one); the text names the file."""


class AddressUnavailable(Exception):
    """A requested address is in use, or in no range of the node."""


@dataclass(frozen=True)
class Wanted:
    """A request for an attachment, before anything is given to it."""

    container_id: str
    ifname: str
    network: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    mtu: int
    created_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    mac: str = ""


@dataclass(frozen=True)
class Record:
    """An attachment: `addresses` with the prefix length of the node's range, `created_at` in seconds since 1970."""

    container_id: str
    ifname: str
    network: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...]
    mac: str
    ofport: int
    mtu: int
    labels: Mapping[str, str]
    created_at: float
    phase: str

    @property
    def key(self) -> tuple[str, str]:
        return self.container_id, self.ifname

    @property
    def pod(self) -> str:
        """namespace/name, as logs and errors write it."""
        return f"{self.pod_namespace}/{self.pod_name}"

    @property
    def host_interface(self) -> str:
        """The node's end of the link; its name tells the port's number."""
        return f"{HOST_PREFIX}{self.ofport}"

    @property
    def host_mac(self) -> str:
        return ipam.host_mac(self.ofport)


#: What the names of all node-side interfaces of pods begin with, and no other interface's does.
HOST_PREFIX: Final = "sdn-p"


class State:
    """The file, opened. Every method is one transaction and safe in every thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "agent.db"
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._path.chmod(0o600)
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._migrate()
            self._records = {record.key: record for record in self._read_all()}
        except StateError:
            raise
        except (sqlite3.Error, OSError) as problem:
            raise self._error(problem) from problem

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- attachments

    def attachments(self) -> list[Record]:
        """All of them, whatever their phase."""
        with self._lock:
            return list(self._records.values())

    def attachment(self, container_id: str, ifname: str) -> Record | None:
        with self._lock:
            return self._records.get((container_id, ifname))

    def allocate(self, wanted: Wanted, ranges: Sequence[Network]) -> Record:
        """Give an attachment its addresses and port, and record it as being made.

        ipam.Exhausted, with the range as its text, when a range or the port numbers are used up; AddressUnavailable
        when a requested address or MAC cannot be had. Nothing is recorded then.
        """
        with self._transaction():
            # The range whose address names the pod's MAC, unless another one is asked for.
            leading = None if wanted.mac else min(ranges, key=lambda network: network.version, default=None)
            addresses = tuple(
                self._address(network, wanted.addresses, network is leading) for network in ranges
            )
            for address in wanted.addresses:
                if not any(address in network for network in ranges):
                    raise AddressUnavailable(f"{address} is in no range of this node ({_texts(ranges)})")
            mac = wanted.mac or ipam.pod_mac(tuple(address.ip for address in addresses))
            for other in self._records.values():
                if other.mac == mac:
                    raise AddressUnavailable(f"MAC {mac} is used by pod {other.pod}")
            ofport = self._next(
                "ofport", FIRST_POD_PORT, LAST_POD_PORT, {other.ofport for other in self._records.values()}
            )
            record = Record(
                wanted.container_id,
                wanted.ifname,
                wanted.network,
                wanted.netns,
                wanted.pod_namespace,
                wanted.pod_name,
                wanted.pod_uid,
                addresses,
                mac,
                ofport,
                wanted.mtu,
                dict(wanted.labels),
                wanted.created_at,
                MAKING,
            )
            self._insert(record)
        return record

    def set_phase(self, record: Record, phase: str) -> Record:
        """The record in its new phase."""
        changed = replace(record, phase=phase)
        with self._transaction():
            self._db.execute(
                "UPDATE attachment SET phase = ? WHERE container_id = ? AND ifname = ?", (phase, *record.key)
            )
            self._records[record.key] = changed
        return changed

    def set_netns(self, record: Record, netns: str) -> Record:
        """The record with another path of the same container's namespace."""
        changed = replace(record, netns=netns)
        with self._transaction():
            self._db.execute(
                "UPDATE attachment SET netns = ? WHERE container_id = ? AND ifname = ?", (netns, *record.key)
            )
            self._records[record.key] = changed
        return changed

    def release(self, record: Record) -> None:
        """Forget an attachment; its addresses can be given again. Of the unknown: nothing happens."""
        with self._transaction():
            self._db.execute("DELETE FROM attachment WHERE container_id = ? AND ifname = ?", record.key)
            self._records.pop(record.key, None)

    # --- what the node was told

    def node_uid(self) -> str:
        """This node's identity, generated at the first call."""
        with self._transaction():
            uid = self._get("node_uid")
            if uid is None:
                uid = str(uuid.uuid4())
                self._set("node_uid", uid)
        return uid

    def load(self, key: str, kind: type[T]) -> T | None:
        """A value stored under a key, None when there is none or when it is of an older shape."""
        with self._lock:
            try:
                text = self._get(key)
            except sqlite3.Error as problem:
                raise self._error(problem) from problem
        if text is None:
            return None
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError:
            return None

    def save(self, key: str, value: Any) -> None:
        with self._transaction():
            self._set(key, msgspec.json.encode(value).decode())

    # --- inside a transaction

    def _address(
        self, network: Network, requested: Sequence[Address], gives_mac: bool
    ) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
        used = {
            int(address.ip): record
            for record in self._records.values()
            for address in record.addresses
            if address.version == network.version
        }
        first, last = ipam.bounds(network)
        for address in requested:
            if address.version != network.version:
                continue
            if address not in network or not first <= int(address) <= last:
                raise AddressUnavailable(f"{address} cannot be given to a pod of this node (range {network})")
            if int(address) in used:
                raise AddressUnavailable(f"{address} is used by pod {used[int(address)].pod}")
            return ipaddress.ip_interface(f"{address}/{network.prefixlen}")
        taken = set(used)
        macs = {record.mac for record in self._records.values()}
        while True:
            number = self._next(str(network), first, last, taken)
            address = network[number - int(network[0])]
            if not gives_mac or ipam.pod_mac((address,)) not in macs:
                return ipaddress.ip_interface(f"{address}/{network.prefixlen}")
            # A pod has asked for this MAC. Were it refused here, every later pod would come to the same address.
            taken.add(number)

    def _next(self, pool: str, first: int, last: int, used: Any) -> int:
        row = self._db.execute("SELECT last FROM cursor WHERE pool = ?", (pool,)).fetchone()
        try:
            number = ipam.next_free(first, last, used, int(row[0]) if row else None)
        except ipam.Exhausted:
            raise ipam.Exhausted(pool) from None
        # As text: SQLite's integers end at 64 bits.
        self._db.execute("INSERT OR REPLACE INTO cursor VALUES (?, ?)", (pool, str(number)))
        return number

    def _insert(self, record: Record) -> None:
        by_version = {address.version: str(address) for address in record.addresses}
        self._db.execute(
            f"INSERT INTO attachment ({_COLUMNS}) VALUES ({', '.join('?' * 15)})",
            (
                *(record.container_id, record.ifname, record.network, record.netns),
                *(record.pod_namespace, record.pod_name, record.pod_uid),
                *(by_version.get(4), by_version.get(6), record.mac, record.ofport, record.mtu),
                *(msgspec.json.encode(record.labels).decode(), record.created_at, record.phase),
            ),
        )
        self._records[record.key] = record

    def _get(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            before = dict(self._records)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as problem:
                self._records = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(problem, sqlite3.Error):
                    raise self._error(problem) from problem
                raise

    def _error(self, problem: Exception) -> StateError:
        return StateError(f"state file {self._path}: {problem}")

    def _migrate(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StateError(f"state file {self._path} was written by a newer agent (version {version})")
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")

    def _read_all(self) -> Iterator[Record]:
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM attachment"):
            addresses = tuple(ipaddress.ip_interface(text) for text in row[7:9] if text is not None)
            labels = msgspec.json.decode(row[12], type=dict[str, str])
            container_id, ifname, network, netns, pod_namespace, pod_name, pod_uid = row[:7]
            yield Record(
                container_id=container_id,
                ifname=ifname,
                network=network,
                netns=netns,
                pod_namespace=pod_namespace,
                pod_name=pod_name,
                pod_uid=pod_uid,
                addresses=addresses,
                mac=row[9],
                ofport=row[10],
                mtu=row[11],
                labels=labels,
                created_at=row[13],
                phase=row[14],
            )


def _texts(items: Sequence[object]) -> str:
    return ", ".join(str(item) for item in items)
