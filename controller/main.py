# SPDX-License-Identifier: Apache-2.0
"""sdn-controller: puts the parts together, and takes them apart again.

Start: the store is opened and loaded, the OpenFlow and gRPC addresses are opened (a taken port ends the start
with the setting's name), then readiness is told. End: readiness is withdrawn, agents and switches are let go;
what is forwarding goes on, since nothing is written to a switch on the way out.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import socket
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from controller import collector, drift, osken
from controller.addresses import split_address
from controller.engine import Engine
from controller.grpctls import GrpcTls
from controller.ha.membership import NameTakenError
from controller.ha.presence import Presence, member_record
from controller.listener import Listener
from controller.listening import ListenError, listen
from controller.records import CorruptRecordError, MemberRecord
from controller.rulings import Rulings
from controller.services.daemon import DaemonService
from controller.services.inspection import InspectionService
from controller.services.sessions import ControllerService
from controller.settings import ControllerSettings
from controller.store import AccessError, Store, StoreError, open_store
from controller.switchboard import Switchboard
from controller.verdicts import Verdicts
from sdn import daemon, logs
from sdn.v1 import controller_pb2, controller_pb2_grpc, inspection_pb2, inspection_pb2_grpc

PROGRAM = "sdn-controller"
#: Threads that compute take turns this often (seconds), so that echoes and agents are answered meanwhile.
SWITCH_INTERVAL = 0.001
#: How long running calls get to end when the controller stops.
GRACE_SECONDS = 0.3

_CONTROLLER = controller_pb2.DESCRIPTOR.services_by_name["Controller"].full_name
_INSPECTION = inspection_pb2.DESCRIPTOR.services_by_name["Inspection"].full_name
_DAEMON = inspection_pb2.DESCRIPTOR.services_by_name["Daemon"].full_name

log = logs.get("controller.main")

_GRPC_OPTIONS = [
    # A full state holds every attachment of a node.
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.so_reuseport", 0),
    # A node that has died is noticed, and agents may ask as often.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Without it a process that is stopped, whose kernel goes on, is noticed after a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
]


def main() -> int:
    """The console script."""
    return daemon.run(PROGRAM, ControllerSettings, serve)


def serve(config: ControllerSettings, stop: daemon.Stop) -> None:
    """Run until ``stop``. daemon.StartError says what an operator must mend."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        store = open_store(config.store, config.store_access())
    except AccessError as problem:
        raise daemon.StartError(f"setting {problem.setting}: {problem}") from None
    except StoreError as problem:
        raise daemon.StartError(f"setting store: {problem}") from None
    try:
        asyncio.run(_serve(config, stop, store))
    finally:
        store.close()


async def _serve(config: ControllerSettings, stop: daemon.Stop, store: Store) -> None:
    tls = _grpc_tls(config)
    switchboard = Switchboard()
    me = member_record(config)
    engine = Engine(store, config.ranges(), switchboard, config.services(), me)
    another_store = asyncio.Event()

    def end_for_another_store(why: str) -> None:
        # The service manager starts it anew, with what the store holds now.
        log.critical("the store is another one: this controller must start anew", error=why)
        another_store.set()
        stop.set("the store is another one", exit_code=1)

    engine.on_another_store = end_for_another_store
    # What is loaded stays. The collector, which holds up every thread, would look through all of it again and again.
    gc.disable()
    try:
        await engine.load()
    except StoreError as problem:
        engine.stop()
        raise daemon.StartError(f"setting store: {problem}") from None
    except CorruptRecordError as problem:
        engine.stop()
        raise _unreadable(problem, config) from None
    finally:
        gc.freeze()
        gc.enable()
        collector.set_survivors_aside()
    try:
        listener = _openflow_listener(config)
    except BaseException:
        engine.stop()
        raise
    osken.set_keepalive(config.openflow_echo_seconds, config.openflow_echo_unanswered)
    drift.set_watching(config.repair_at_once)
    verdicts = Verdicts()
    Rulings(engine.cluster, engine.policies).serve(verdicts)
    manager = osken.start(
        ["controller.app"], listener.accept_forever, switchboard=switchboard, verdicts=verdicts
    )
    sessions = ControllerService(
        engine,
        config.name,
        tuple(config.openflow_targets),
        "ssl" if config.openflow_certificate else "tcp",
        listener.port,
    )
    verdicts.to_agent = sessions.send_verdicts
    sessions.on_verdicts_lost = verdicts.untold
    server = grpc.aio.server(options=_GRPC_OPTIONS)
    inspection = InspectionService(engine, verdicts, tls.channel() if tls is not None else None)
    liveness = _add_services(server, sessions, inspection)
    own_socket = False
    presence: Presence | None = None
    try:
        _listen_grpc(server, config, tls)
        own_socket = bool(config.grpc_socket)
        await server.start()
        if config.grpc_socket:
            Path(config.grpc_socket).chmod(0o660)
        presence = _presence(store, engine, me, config)
        if await _enter(presence, stop, config):
            for service in ("", _CONTROLLER, _INSPECTION):
                await liveness.set(service, health_pb2.HealthCheckResponse.SERVING)
            stop.ready(
                f"switches on {config.openflow_address}, gRPC on {config.grpc_address or config.grpc_socket}"
            )
            await stop.wait_async()
        await liveness.enter_graceful_shutdown()
        await presence.leave(hand_over=not another_store.is_set())
    finally:
        listener.close()
        sessions.end_all()
        if presence is not None:
            await presence.gone()
        await inspection.close()
        await server.stop(GRACE_SECONDS)
        engine.stop()
        switchboard.close()
        await asyncio.to_thread(osken.stop, manager)
        if own_socket:
            with suppress(FileNotFoundError):
                Path(config.grpc_socket).unlink()


def _presence(store: Store, engine: Engine, me: MemberRecord, config: ControllerSettings) -> Presence:
    try:
        return Presence(store, engine, me, config)
    except ListenError as problem:
        raise daemon.StartError(f"setting peers_address: {problem}") from None


async def _enter(presence: Presence, stop: daemon.Stop, config: ControllerSettings) -> bool:
    """Be one of the controllers; False: told to stop before. daemon.StartError."""
    try:
        return await presence.enter(stop)
    except NameTakenError as problem:
        raise daemon.StartError(f"setting name: {problem}") from None
    except AccessError as problem:
        raise daemon.StartError(f"setting {problem.setting}: {problem}") from None
    except CorruptRecordError as problem:
        raise _unreadable(problem, config) from None


def _unreadable(problem: CorruptRecordError, config: ControllerSettings) -> daemon.StartError:
    """What an operator does about a value that no start gets past: without it something may be missing in the
    switches, so that is for him to say.
    """
    removing = f"etcdctl del {shlex.quote(problem.key)}"
    if not config.one_of_several:
        path = shlex.quote(config.store.removeprefix("sqlite://"))
        key = problem.key.replace("'", "''")
        statement = f"DELETE FROM entries WHERE key = '{key}'"
        removing = f"sqlite3 {path} {shlex.quote(statement)}"
    return daemon.StartError(
        f"setting store: {problem}. If a newer build wrote it, start that one; else remove it, and declare or report "
        f"anew what it was, by: {removing}"
    )


def _openflow_listener(config: ControllerSettings) -> Listener:
    try:
        tls = _tls_context(config)
    except (OSError, ssl.SSLError) as problem:
        raise daemon.StartError(f"setting openflow_certificate: {problem}") from None
    try:
        return Listener(listen(config.openflow_address), osken.serve_connection, tls)
    except ListenError as problem:
        raise daemon.StartError(f"setting openflow_address: {problem}") from None


def _tls_context(config: ControllerSettings) -> ssl.SSLContext | None:
    if config.openflow_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.openflow_certificate, config.openflow_key)
    if config.openflow_ca is not None:
        context.load_verify_locations(config.openflow_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _add_services(
    server: grpc.aio.Server, sessions: ControllerService, inspection: InspectionService
) -> health.aio.HealthServicer:
    controller_pb2_grpc.add_ControllerServicer_to_server(sessions, server)
    inspection_pb2_grpc.add_InspectionServicer_to_server(inspection, server)
    inspection_pb2_grpc.add_DaemonServicer_to_server(DaemonService(PROGRAM), server)
    liveness = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
    names = (_CONTROLLER, _INSPECTION, _DAEMON, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return liveness


def _listen_grpc(server: grpc.aio.Server, config: ControllerSettings, tls: GrpcTls | None) -> None:
    """Open the TCP address and the unix socket. daemon.StartError when one cannot be had."""
    if config.grpc_address:
        host, port = split_address(config.grpc_address)
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            # gRPC says only that it failed: find out why beforehand.
            listen(config.grpc_address).close()
            if tls is None:
                server.add_insecure_port(target)
            else:
                server.add_secure_port(target, tls.server())
        except (ListenError, RuntimeError) as problem:
            raise daemon.StartError(f"setting grpc_address: {problem}") from None
    if config.grpc_socket:
        path = Path(config.grpc_socket)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            _remove_stale_socket(path)
            server.add_insecure_port(f"unix:{path}")
        except (OSError, RuntimeError) as problem:
            raise daemon.StartError(f"setting grpc_socket: {path}: {problem}") from None


def _remove_stale_socket(path: Path) -> None:
    """A killed controller leaves its socket behind; one that still answers belongs to a running process."""

    if not path.is_socket():
        if path.exists():
            raise OSError("exists, and is no socket")
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            path.unlink()
            return
    raise OSError("in use by another process")


def _grpc_tls(config: ControllerSettings) -> GrpcTls | None:
    try:
        return GrpcTls.read(config)
    except OSError as problem:
        raise daemon.StartError(f"setting grpc_certificate: {problem}") from None


if __name__ == "__main__":
    sys.exit(main())
