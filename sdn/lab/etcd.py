# SPDX-License-Identifier: Apache-2.0
"""The etcd members of a lab: who answers, and who leads.

Each member is asked on its own machine and about itself alone, so that it makes no difference who reaches whom. The
question is that of `etcdctl endpoint status`, through the JSON gateway, which etcd 3.4 has at /v3.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from sdn.lab import namespaces
from sdn.lab.errors import LabError
from sdn.lab.programs import ETCD_CLIENT_PORT
from sdn.lab.spec import LabSpec, Machine
from sdn.lab.waiting import patience, wait_until

#: How long a member may take to answer, seconds; one that is frozen never does.
_ANSWER = 1.0


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A member that answers, and what it says of itself."""

    name: str
    id: int
    #: Whom it takes for the leader; 0: it knows none.
    leader_id: int
    #: Raft's term. A leader that was cut off goes on with an old one until it notices.
    term: int
    #: The store's revision here.
    revision: int

    @property
    def leads(self) -> bool:
        return self.leader_id == self.id


class _Header(msgspec.Struct):
    member_id: int
    revision: int = 0


class _Status(msgspec.Struct):
    """What etcd leaves out is 0."""

    header: _Header
    leader: int = 0
    raftTerm: int = 0  # noqa: N815 - etcd's name


def members(spec: LabSpec) -> tuple[Member, ...]:
    """The members that answer."""
    machines = spec.store_machines
    if not machines:
        raise LabError(f"lab {spec.name} has no etcd: its store is {spec.store}")
    with ThreadPoolExecutor(len(machines)) as pool:
        return tuple(member for member in pool.map(_asked, machines) if member is not None)


def leader(spec: LabSpec) -> str:
    """Name of the member that leads; LabError when none does."""
    name = _leader(members(spec))
    if name is None:
        raise LabError(f"no etcd member of lab {spec.name} leads just now")
    return name


def wait_leader(spec: LabSpec, *, other_than: Iterable[str] = (), seconds: float = 30) -> str:
    """Wait until a member leads that is none of `other_than`; its name."""
    no = set(other_than)
    found: list[str] = []

    def led() -> bool:
        name = _leader(members(spec))
        if name is not None and name not in no:
            found.append(name)
        return bool(found)

    wait_until(led, "an etcd member to lead", seconds)
    return found[0]


def enough_to_stop_writes(spec: LabSpec) -> tuple[str, ...]:
    """The fewest members without which the rest has no majority, the leader among them."""
    names = [machine.name for machine in spec.store_machines]
    first = wait_leader(spec)
    ordered = [first, *(name for name in names if name != first)]
    return tuple(ordered[: len(names) - len(names) // 2])


def _leader(answers: Iterable[Member]) -> str | None:
    leading = [member for member in answers if member.leads]
    return max(leading, key=lambda member: member.term).name if leading else None


def _asked(machine: Machine) -> Member | None:
    connection = http.client.HTTPConnection(machine.ipv4, ETCD_CLIENT_PORT)
    try:
        with namespaces.entered(machine.netns):
            connection.sock = socket.create_connection(
                (machine.ipv4, ETCD_CLIENT_PORT), timeout=patience(_ANSWER)
            )
        connection.request("POST", "/v3/maintenance/status", body=b"{}")
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException):  # it is down, frozen, or just being started
        return None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        return None
    # The gateway writes 64-bit numbers as strings.
    status = msgspec.json.decode(content, type=_Status, strict=False)
    return Member(
        name=machine.name,
        id=status.header.member_id,
        leader_id=status.leader,
        term=status.raftTerm,
        revision=status.header.revision,
    )
