# SPDX-License-Identifier: Apache-2.0
"""`sdn-agent`: puts the parts together, starts them in order, ends them without touching what forwards.

Start needs ovsdb-server and ovs-vswitchd (it waits for them) but no controller: with what is on disk the node
is set up, DEL and CHECK are served, and ADD waits for a controller as long as it may.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from agent.alone.keeper import Keeper
from agent.attachments import Attachments
from agent.audit import AuditLog
from agent.dns import config as dns
from agent.dns.child import DnsServer
from agent.dns.feed import Resolution
from agent.drift import Drift
from agent.grpcserver import AgentService, GrpcServer
from agent.nodesetup.facts import Assignment, NodeFacts
from agent.nodesetup.setup import NodeSetup, wait_for_facts
from agent.ovsdb import Ovsdb, OvsdbRefused, OvsdbUnavailable
from agent.owners import Owners
from agent.portconfig import PortConfigs
from agent.ports import INTEGRATION_BRIDGE
from agent.reconcile import Reconciler
from agent.report import Reporter
from agent.server import Server
from agent.services.cache import ServiceCache
from agent.services.plane import ServicePlane
from agent.services.questions import answers
from agent.services.table import ServiceTable
from agent.services.watch import ServiceWatch
from agent.settings import PROGRAM, AgentSettings
from agent.state import State, StateError
from agent.verbs import Verbs
from agent.vswitchd import Vswitchd
from sdn import daemon, logs, notify

log: Final = logs.get("agent.main")

#: Python lets a waiting thread run after this long at the latest. Its usual 5 ms are as long as a whole ADD
#: takes in the agent.
_SWITCH_SECONDS: Final = 0.0005
_LOOK_SECONDS: Final = 0.5


def serve(config: AgentSettings, stop: daemon.Stop) -> None:
    """Run until asked to end."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    folder = daemon.private_folder(config.state_dir)
    daemon.shared_folder(config.socket.parent)
    with daemon.hold(folder):
        try:
            state = State(folder)
        except StateError as problem:
            raise daemon.StartError(str(problem)) from None
        try:
            _Agent(config, state).run(stop)
        finally:
            state.close()


class _Agent:
    """The parts of a running agent."""

    def __init__(self, config: AgentSettings, state: State) -> None:
        self._config = config
        self._ovsdb = Ovsdb(config.ovsdb)
        vswitchd = Vswitchd(config.ovs_rundir)
        self._setup = NodeSetup(config, state, self._ovsdb, vswitchd, self._repaired)
        self._attachments = Attachments(state, self._ovsdb, self._setup)
        self._audit = _audit_log(config)
        self._owners = Owners(config.controllers, config.node_name)
        self._owners.subscribe(self._connect)
        self._reporter = Reporter(
            self._owners,
            facts=self._facts,
            ranges=self._ranges,
            attachments=self._attachments.to_report,
            assigned=self._assign,
            peers=self._setup.tell_peers,
            programmed=self._attachments.programmed,
            answers=partial(answers, vswitchd, self._facts),
            verdicts=self._audit.put if self._audit is not None else lambda _records: None,
            domains=lambda patterns: self._dns.watch(patterns),
        )
        self._attachments.reporter = self._reporter
        self._services = ServiceTable()
        self._service_watch = ServiceWatch(
            self._owners, config.node_name, self._services, ServiceCache(config.state_dir)
        )
        self._service_plane = ServicePlane(self._services, self._setup)
        self._dns = DnsServer(config.state_dir, self._resolved)
        self._reconciler = Reconciler(state, self._ovsdb, self._attachments, self._repaired)
        self._attachments.on_unfinished = self._reconciler.retry
        self._drift = Drift(config.uplink, self._setup.poke, self._reconciler.look_at)
        self._ovsdb.on_change = self._drift.changed
        management = config.ovs_rundir / f"{INTEGRATION_BRIDGE}.mgmt"
        self._port_configs = PortConfigs(management, self._repaired)
        self._keeper = Keeper(
            config.state_dir,
            management,
            datapath_id=lambda: self._facts().datapath_id,
            attended=lambda: self._reporter.connected,
            confirmed=lambda: self._reporter.settled,
            reconnect=lambda: vswitchd.command("bridge/reconnect", INTEGRATION_BRIDGE),
        )
        verbs = Verbs(config, state, self._ovsdb, vswitchd, self._setup, self._reporter, self._attachments)
        self._plugin = Server(config.socket, verbs.answer, config.parallel_requests)
        parallel = config.parallel_requests
        service = AgentService(verbs.answer, state, self._setup, self._reporter, self._attachments, parallel)
        self._grpc = GrpcServer(config.grpc_socket, service, parallel)

    def run(self, stop: daemon.Stop) -> None:
        ending = threading.Event()
        stop.on_stop(ending.set)
        # First what is known from disk, so that the set-up takes nothing of it away.
        if self._service_watch.load():
            # What a controller told an earlier agent: better than nothing until it tells us.
            self._dns.complete()
        self._services.subscribe(self._dns.take)
        self._serve_dns()
        self._dns.start()
        self._ovsdb.start()
        facts = wait_for_facts(self._setup, ending)
        if facts is None:
            self._dns.close()
            self._ovsdb.close()
            return
        log.info(
            "this node",
            node=facts.name,
            addresses=facts.addresses,
            tunnel=facts.tunnel_address,
            mtu=facts.mtu,
            datapath_id=f"{facts.datapath_id:016x}",
        )
        self._catch_up(ending)
        self._service_plane.start()
        self._setup.start()
        self._keeper.start()
        if self._audit is not None:
            self._audit.start()
        self._reporter.start()
        self._service_watch.start()
        self._owners.start()
        self._reconciler.start()
        self._drift.start()
        self._port_configs.start()
        try:
            self._plugin.start()
            self._grpc.start()
        except OSError as problem:
            raise daemon.StartError(f"cannot serve on {config_socket(self._config)}: {problem}") from None
        stop.ready(f"node {facts.name}, {len(self._attachments.to_report())} attachments")
        self._watch(ending)
        self._plugin.close()
        self._grpc.close()
        self._drift.close()
        self._port_configs.close()
        self._reconciler.close()
        self._service_watch.close()
        self._dns.close()
        self._service_plane.close()
        self._keeper.close()
        self._setup.close()
        self._reporter.close()
        self._owners.close()
        if self._audit is not None:
            self._audit.close()
        self._ovsdb.close()

    def _catch_up(self, ending: threading.Event) -> None:
        """Put right what an earlier agent left, before anything new is made."""
        while not ending.is_set():
            try:
                self._reconciler.undo_unfinished()
                self._reconciler.run()
            except OvsdbUnavailable as problem:
                log.warning("what is there cannot be compared yet", error=str(problem))
                ending.wait(_LOOK_SECONDS)
            except (OvsdbRefused, OSError) as problem:
                # All that can be put right is: the rest must not keep the node from its pods, and is tried again later.
                log.warning("not all that is there could be put right", error=str(problem))
                return
            else:
                return

    def _watch(self, ending: threading.Event) -> None:
        """Tell health and the service manager what can be done, until the end."""
        told: bool | None = None
        connected = True
        while not ending.wait(_LOOK_SECONDS):
            able = self._reporter.connected and self._setup.complete and self._ovsdb.connected
            if able != told:
                told = able
                self._grpc.set_able(able)
                notify.status("pods can be added" if able else f"pods cannot be added: {self._trouble()}")
            if self._ovsdb.connected and not connected:
                # The database may be another one than before.
                self._setup.poke()
                self._reconciler.poke()
            connected = self._ovsdb.connected

    def _trouble(self) -> str:
        if not self._ovsdb.connected:
            return "ovsdb-server does not answer"
        if not self._reporter.connected:
            return "no controller is connected"
        return self._setup.trouble

    def _assign(self, assignment: Assignment) -> None:
        # Welcome's may be older than the controllers' latest word.
        if targets := self._owners.view.openflow_targets:
            assignment = msgspec.structs.replace(assignment, openflow_targets=list(targets))
        self._setup.assign(assignment)
        self._serve_dns()

    def _connect(self) -> None:
        """Something is new about the controllers: the switch is connected to those that are told."""
        self._setup.connect(self._owners.view.openflow_targets)

    def _serve_dns(self) -> None:
        self._dns.assign(
            dns.from_assignment(
                self._setup.assignment, tuple(self._config.dns_upstreams), self._config.log_level
            )
        )

    def _resolved(self, said: Resolution, done: Callable[[bool], None]) -> None:
        self._reporter.resolved(said.name, said.addresses, said.ttl, done)

    def _repaired(self, kind: str, what: str) -> None:
        """Something was not as it must be, and is put right."""
        self._reporter.drifted(kind, what)

    def _ranges(self) -> list[str]:
        assignment = self._setup.assignment
        return assignment.pod_ranges if assignment is not None else []

    def _facts(self) -> NodeFacts:
        facts = self._setup.facts
        if facts is None:
            raise RuntimeError("the node was not looked at")
        return facts


def _audit_log(config: AgentSettings) -> AuditLog | None:
    if not config.audit_log:
        return None
    path = config.state_dir / config.audit_log
    return AuditLog(path, config.audit_log_max_bytes, config.audit_log_files)


def config_socket(config: AgentSettings) -> str:
    """The sockets as errors name them."""
    return f"{config.socket} and {config.grpc_socket}"


def main() -> int:
    """The console script."""
    return daemon.run(PROGRAM, AgentSettings, serve)


if __name__ == "__main__":
    sys.exit(main())
