# SPDX-License-Identifier: Apache-2.0
"""The verbs of CNI, done: ADD, DEL, CHECK, STATUS and GC.

ADD goes through these steps, and is undone from whichever it fails in:

    record     addresses, MAC and port number are given and written to disk
    report     the controller is told; it programs the switch meanwhile
    link       the veth pair
    pod        the addresses and the routes in the pod, while the switch takes the link
    port       the switch has the link as a port, under the number that was told
    confirmed  the controller says that the pod's flows are in force
    ready      the record says so

The log line "pod attached" says how long each of them took. Only then is the runtime answered. An agent that
is killed on the way finds the record when it comes back, still marked as being made, and undoes it then
(`agent.reconcile`).

Requests for one container are done one after the other; others run beside it.
"""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from agent import ipam, link, ports
from agent.attachments import Attachments
from agent.cni import request as requests
from agent.cni import result as results
from agent.cni.errors import CniError, Code
from agent.cni.request import SUPPORTED, Call, Request
from agent.netns import NODE, Netns, NetnsError
from agent.nodesetup.setup import NodeSetup
from agent.ovsdb import Ovsdb, OvsdbRefused, OvsdbUnavailable
from agent.report import Rejected, Reporter
from agent.settings import AgentSettings
from agent.state import MAKING, READY, AddressUnavailable, Record, State, Wanted
from agent.vswitchd import Vswitchd
from sdn import logs

log: Final = logs.get("agent.verbs")

#: What may go wrong on a node and right again, a full disk among it (`agent.state.StateError`). All else is a defect.
EXPECTED: Final = (OvsdbUnavailable, OvsdbRefused, OSError)


class Verbs:
    """Answers requests. `answer` may be called in any number of threads."""

    def __init__(
        self,
        settings: AgentSettings,
        state: State,
        ovsdb: Ovsdb,
        vswitchd: Vswitchd,
        setup: NodeSetup,
        reporter: Reporter,
        attachments: Attachments,
    ) -> None:
        self._settings = settings
        self._state = state
        self._ovsdb = ovsdb
        self._vswitchd = vswitchd
        self._setup = setup
        self._reporter = reporter
        self._attachments = attachments

    def answer(self, call: Call) -> tuple[int, bytes]:
        """(CNI error code or 0, what to print)."""
        began = time.monotonic()
        try:
            output = self._answer(call)
            code = 0
        except CniError as error:
            code, output = int(error.code), error.encode(requests.spoken_version(call.config))
            problem = error
        except Exception as error:  # a request must get its answer, whatever happens
            log.exception("request failed by a defect", verb=call.verb, container=call.container_id)
            failed = CniError(
                Code.INTERNAL, f"{call.verb} failed in the agent: {type(error).__name__}: {error}"
            )
            return int(failed.code), failed.encode(requests.spoken_version(call.config))
        fields: dict[str, Any] = {
            "verb": call.verb,
            "container": call.container_id,
            "interface": call.ifname,
            "duration_ms": round((time.monotonic() - began) * 1000, 1),
        }
        if code:
            log.warning("request failed", code=code, error=problem.message, **fields)
        else:
            log.info("request done", **fields)
        return code, output

    def _answer(self, call: Call) -> bytes:
        request = requests.parse(call)
        try:
            return self._do(request)
        except EXPECTED as problem:
            container = request.container_id
            what = f"container {container}" if container else f"network {request.network}"
            raise _failure(problem, what) from problem

    def _do(self, request: Request) -> bytes:
        if request.verb == "ADD":
            return json.dumps(self._add(request)).encode()
        if request.verb == "DEL":
            self._delete(request)
        elif request.verb == "CHECK":
            self._check(request)
        elif request.verb == "STATUS":
            self._status()
        elif request.verb == "GC":
            self._collect(request)
        else:
            return json.dumps({"cniVersion": request.version, "supportedVersions": SUPPORTED}).encode()
        return b""

    # --- ADD

    def _add(self, request: Request) -> dict[str, Any]:
        deadline = time.monotonic() + self._settings.add_timeout
        results.refuse_double(request.prev_result, request.ifname)
        with _open(request) as netns, self._attachments.alone(request.container_id):
            if not request.awaited():
                # The DEL that follows may have been here already: whatever was made now would stay for ever.
                raise CniError(
                    Code.TRY_AGAIN, f"container {request.container_id}: nobody waits for it any more"
                )
            record = self._state.attachment(request.container_id, request.ifname)
            if record is not None and record.network != request.network:
                raise CniError(
                    Code.INVALID_ENVIRONMENT,
                    f"CNI_IFNAME: {request.ifname} of container {request.container_id} belongs to the network "
                    f"{record.network}",
                )
            if record is None or not self._stands(record, netns):
                record = self._make(request, netns, record, deadline)
            elif record.netns != request.netns:
                record = self._state.set_netns(record, request.netns)
            return self._result(request, record)

    def _stands(self, record: Record, netns: Netns) -> bool:
        """Whether an earlier ADD has made it, and all of it is there still, or again."""
        if record.phase != READY or self._attachments.leaving(record):
            return False
        with self._attachments.netlink() as node:
            if not link.mend(node, record, netns):
                return False
        return not self._ovsdb.read(lambda replica: ports.difference(replica, record))

    def _make(self, request: Request, netns: Netns, left: Record | None, deadline: float) -> Record:
        """A new attachment, or the addresses of one that was left half-made in a new one."""
        if not self._setup.wait_complete(deadline - time.monotonic()):
            raise CniError(
                Code.TRY_AGAIN, f"node {self._settings.node_name} is not set up: {self._setup.trouble}"
            )
        if left is not None:
            self._attachments.remove(left, netns)
            if self._state.attachment(*left.key) is not None:
                raise CniError(
                    Code.TRY_AGAIN, f"pod {left.pod}: what an earlier request left cannot be removed yet"
                )
        steps = _Steps()
        record = self._allocate(request)
        steps.done("record")
        try:
            confirmation = self._reporter.attach(record)
            self._wire(record, netns, deadline, steps)
            if not confirmation.wait(deadline - time.monotonic()):
                raise CniError(
                    Code.TRY_AGAIN,
                    f"no controller confirmed pod {record.pod} within {self._settings.add_timeout:g} s",
                    "" if self._reporter.connected else "no controller is connected",
                )
            steps.done("confirmed")
            record = self._state.set_phase(record, READY)
        except BaseException as problem:
            self._undo(record, netns)
            raise _as_cni(problem, record) from problem
        steps.done("ready")
        log.info("pod attached", pod=record.pod, container=record.container_id, **steps.milliseconds)
        return record

    def _undo(self, record: Record, netns: Netns) -> None:
        """What cannot be undone now is left to `agent.reconcile`: the runtime is to be told what failed first."""
        try:
            self._attachments.remove(record, netns)
        except EXPECTED as problem:
            log.warning("undone later", pod=record.pod, container=record.container_id, error=str(problem))

    def _allocate(self, request: Request) -> Record:
        assignment, facts = self._setup.assignment, self._setup.facts
        assert assignment is not None
        assert facts is not None
        args = request.arguments
        wanted = Wanted(
            container_id=request.container_id,
            ifname=request.ifname,
            network=request.network,
            netns=request.netns,
            pod_namespace=args.pod_namespace or "default",
            pod_name=args.pod_name or request.container_id,
            pod_uid=args.pod_uid,
            mtu=facts.mtu,
            created_at=time.time(),
            labels=request.labels,
            addresses=request.requested_ips,
            mac=request.requested_mac,
        )
        try:
            return self._state.allocate(wanted, assignment.ranges())
        except ipam.Exhausted as pool:
            raise CniError(
                Code.RANGE_EXHAUSTED,
                f"range {pool} of node {facts.name} is exhausted: every address is in use",
            ) from None
        except AddressUnavailable as problem:
            raise CniError(Code.INVALID_CONFIGURATION, str(problem)) from None

    def _wire(self, record: Record, netns: Netns, deadline: float, steps: _Steps) -> None:
        """The link, and the switch's port on it."""
        with self._attachments.netlink() as node:
            link.make(node, record, netns)
            steps.done("link")
            # The switch opens the interface while we furnish the pod's side.
            plug = self._ovsdb.begin(ports.plug(record), record.host_interface)
            plugged = self._ovsdb.begin_wait(ports.plugged(record.host_interface, record.ofport))
            try:
                link.furnish(record, netns, software_checksums=self._settings.datapath == "netdev")
                steps.done("pod")
                self._ovsdb.result(plug, deadline - time.monotonic(), f"store port {record.host_interface}")
                self._ovsdb.result(plugged, deadline - time.monotonic(), f"make port {record.host_interface}")
                steps.done("port")
            except BaseException:
                plug.cancel()
                plugged.cancel()
                raise

    def _result(self, request: Request, record: Record) -> dict[str, Any]:
        cluster = requests.Dns()
        if (assignment := self._setup.assignment) is not None:
            cluster = results.cluster_dns(
                record.pod_namespace, assignment.cluster_domain, assignment.dns_addresses, record.addresses
            )
        result = results.Result(
            node_side=results.Interface(record.host_interface, record.host_mac, record.mtu),
            pod_side=results.Interface(record.ifname, record.mac, record.mtu, request.netns),
            addresses=tuple((address, str(ipam.gateway(address.network))) for address in record.addresses),
            dns=results.chosen_dns(request.dns, request.prev_result, cluster),
        )
        return results.document(result, request.version, request.prev_result)

    # --- DEL, GC

    def _delete(self, request: Request) -> None:
        with self._attachments.alone(request.container_id):
            record = self._state.attachment(request.container_id, request.ifname)
            if record is None or record.network != request.network:
                return
            with _open_if_there(request.netns or record.netns) as netns:
                self._attachments.remove(record, netns)

    def _collect(self, request: Request) -> None:
        """Remove what the runtime does not know any more, of its own network only. What cannot be removed keeps nothing
        else from it (CNI specification 1.1.0, section 2, "GC").
        """
        failed: list[CniError] = []
        for found in self._state.attachments():
            if found.network != request.network or found.key in request.valid:
                continue
            try:
                self._collect_one(found)
            except EXPECTED as problem:
                failed.append(_failure(problem, f"pod {found.pod}"))
        if failed:
            raise CniError(failed[0].code, "; ".join(error.message for error in failed))

    def _collect_one(self, found: Record) -> None:
        with self._attachments.alone(found.container_id):
            record = self._state.attachment(*found.key)
            if record is None or record.created_at != found.created_at:
                return
            with _open_if_there(record.netns) as netns:
                self._attachments.remove(record, netns)
            log.info("collected", pod=record.pod, container=record.container_id, interface=record.ifname)

    # --- CHECK, STATUS

    def _check(self, request: Request) -> None:
        with _open(request) as netns, self._attachments.alone(request.container_id):
            record = self._state.attachment(request.container_id, request.ifname)
            if record is None or record.phase == MAKING:
                raise CniError(
                    Code.UNKNOWN_CONTAINER,
                    f"container {request.container_id} has no interface {request.ifname} on this node",
                )
            found = [*_against(record, request.prev_result or {}), *self._differences(record, netns)]
        # Whoever puts the pod's port right meanwhile does not wait for a controller.
        if not found and not self._attachments.wait_programmed(
            record, self._reporter, self._settings.add_timeout
        ):
            found = [f"the controller has not confirmed pod {record.pod}"]
        if found:
            raise CniError(Code.CHECK_FAILED, f"pod {record.pod}: {found[0]}", "; ".join(found[1:]))

    def _differences(self, record: Record, netns: Netns) -> list[str]:
        """What of an attachment is not as it was made."""
        with self._attachments.netlink() as node:
            found = [f"{difference.what} {difference.why}" for difference in link.check(node, record, netns)]
        port = self._ovsdb.read(lambda replica: ports.difference(replica, record))
        return [*found, port] if port else found

    def _status(self) -> None:
        """Whether an ADD would succeed."""
        if not self._ovsdb.connected:
            raise CniError(Code.NOT_AVAILABLE, f"ovsdb-server does not answer on {self._settings.ovsdb}")
        if not self._vswitchd.running():
            # On the userspace datapath nothing forwards without it; on the kernel's, no new flow is found.
            raise CniError(Code.NOT_AVAILABLE_AND_LIMITED, "ovs-vswitchd does not answer")
        if not self._reporter.connected:
            raise CniError(
                Code.NOT_AVAILABLE, f"no controller is connected ({', '.join(self._reporter.controllers)})"
            )
        if not self._setup.complete:
            raise CniError(Code.NOT_AVAILABLE, f"the node is not set up: {self._setup.trouble}")
        for usage in self._attachments.usage():
            if usage.used >= usage.capacity:
                raise CniError(
                    Code.NOT_AVAILABLE, f"range {usage.range} of node {self._settings.node_name} is exhausted"
                )


class _Steps:
    """How long each step of an ADD took beyond the ones before it: the log says where the time of a slow one went."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.monotonic()

    def done(self, step: str) -> None:
        """The step ends now; the next one begins."""
        now = time.monotonic()
        self.milliseconds[f"{step}_ms"] = round((now - self._last) * 1000, 2)
        self._last = now


def _as_cni(problem: BaseException, record: Record) -> BaseException:
    """Why an ADD failed, as the runtime is told it. A defect stays what it is."""
    if isinstance(problem, Rejected):
        return CniError(Code.REFUSED, f"the controller refused pod {record.pod}: {problem}")
    if isinstance(problem, link.InterfaceExists):
        return CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME: {problem}")
    if isinstance(problem, EXPECTED):
        return _failure(problem, f"pod {record.pod}")
    return problem


def _failure(problem: OvsdbUnavailable | OvsdbRefused | OSError, what: str) -> CniError:
    """A failure that is no defect; `what` names what it is about."""
    code = Code.IO_FAILURE if isinstance(problem, OSError) else Code.TRY_AGAIN
    return CniError(code, f"{what}: {str(problem) or repr(problem)}")


def _open(request: Request) -> Netns:
    try:
        netns = Netns(request.netns)
    except NetnsError as problem:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS: {problem}") from None
    if netns.identity == NODE.identity:
        netns.close()
        raise CniError(
            Code.INVALID_ENVIRONMENT, f"CNI_NETNS: {request.netns} is the node's own network namespace"
        )
    return netns


@contextmanager
def _open_if_there(path: str) -> Iterator[Netns | None]:
    """The namespace, or None when there is none (any more): DEL must succeed then."""
    try:
        netns = Netns(path) if path else None
    except NetnsError:
        netns = None
    try:
        yield None if netns is None or netns.identity == NODE.identity else netns
    finally:
        if netns is not None:
            netns.close()


def _against(record: Record, previous: dict[str, Any] | Any) -> list[str]:
    """What of the runtime's memory of ADD is not what we have."""
    interfaces = previous.get("interfaces") or []
    ours = [
        position
        for position, interface in enumerate(interfaces)
        if interface.get("name") == record.ifname and interface.get("sandbox")
    ]
    if not ours:
        return [f"prevResult has no interface {record.ifname}"]
    found = []
    mac = interfaces[ours[0]].get("mac", "")
    if mac and mac.lower() != record.mac:
        found.append(f"prevResult says MAC {mac}, it is {record.mac}")
    texts = [ip.get("address", "") for ip in previous.get("ips") or [] if ip.get("interface") == ours[0]]
    told = {ipaddress.ip_interface(text) for text in texts}
    if told != set(record.addresses):
        have = ", ".join(str(address) for address in record.addresses)
        found.append(f"prevResult says {', '.join(sorted(texts)) or 'no address'}, it has {have}")
    return found
