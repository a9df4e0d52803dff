# SPDX-License-Identifier: Apache-2.0
"""The order of the node's set-up, and when it is looked at again.

uplink        br-phy and the node's addresses (userspace datapath only)   needs: ovsdb-server, ovs-vswitchd
integration   br-int with its controllers, gateway and tunnel port        needs: what the controller assigned
gateway       addresses and routes of sdn-gw0, routes of Services
firewall      drops, masquerade, NodePorts
announcing    LoadBalancer addresses that the node answers for
tunnelroutes  how the tunnels reach the other nodes (userspace datapath only)
neighbours    tunnel neighbours (userspace datapath only)

The whole is run at start, whenever an interface of ours comes, goes or changes (ovs-vswitchd's taps vanish
with it: the addresses must be back at once), when the controller tells something new, and every half minute
in case somebody else changed something. One thread does it all; a failure is logged and tried again. Nothing
here ever takes away what existing pods forward with.

What is new of other nodes (their addresses in the firewall, tunnel neighbours) comes last, and no pod waits for it:
where nodes join in a row, there is more of it before the last is done.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Final

import msgspec

from agent import conntrack, netlink
from agent.drift import Found
from agent.netlink import Netlink
from agent.nodesetup import (
    announcing,
    firewall,
    gateway,
    integration,
    mtu,
    neighbours,
    tunnelroutes,
    uplink,
)
from agent.nodesetup.facts import GATEWAY_INTERFACE, PHYSICAL_BRIDGE, Assignment, NodeFacts, Peer
from agent.nodesetup.firewall import FirewallError
from agent.nodesetup.frontends import Frontends, NodePort
from agent.nodesetup.gateway import GatewayError
from agent.nodesetup.integration import Mended
from agent.nodesetup.ownports import OwnPorts
from agent.nodesetup.uplink import Uplink, UplinkError
from agent.ovsdb import Ovsdb, OvsdbRefused, OvsdbUnavailable
from agent.ports import INTEGRATION_BRIDGE
from agent.settings import AgentSettings
from agent.state import State, StateError
from agent.vswitchd import Vswitchd, VswitchdRefused, VswitchdUnavailable
from sdn import logs

log: Final = logs.get("agent.nodesetup")

#: What may go wrong on a node and right again; anything else is a defect and ends the agent.
FAILURES: Final = (
    UplinkError,
    GatewayError,
    FirewallError,
    OvsdbRefused,
    OvsdbUnavailable,
    VswitchdRefused,
    VswitchdUnavailable,
    mtu.MtuError,
    OSError,
)
_ASSIGNMENT: Final = "assignment"
_EVERY_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 0.5


class NodeSetup:
    """The node's set-up, kept. `facts` is there after `discover`; `assignment` once a controller told one."""

    def __init__(
        self,
        settings: AgentSettings,
        state: State,
        ovsdb: Ovsdb,
        vswitchd: Vswitchd,
        found: Found = lambda _kind, _what: None,
    ) -> None:
        """`found` is told what was not as it must be, though nothing had changed that it depends on."""
        self._found = found
        #: What bridges and the gateway port were made of when they were as they must be last.
        self._made: dict[str, object] = {}
        self._settings = settings
        self._state = state
        self._ovsdb = ovsdb
        self._vswitchd = vswitchd
        self._poked = threading.Event()
        self._stop = threading.Event()
        self._complete = threading.Event()
        self._last_error = ""
        #: Other nodes as the firewall knows them; nothing before the first set-up, which takes those from disk.
        self._known: list[Peer] | None = None
        #: Why what other nodes need is not in place.
        self._peers_error = ""
        # Held while the kernel is brought to what `_frontends` says, one thread at a time.
        self._applying = threading.Lock()
        self._frontends = Frontends()
        self._in_force: Frontends | None = None
        self._own_ports = OwnPorts()
        self.facts: NodeFacts | None = None
        # Told by several threads, one at a time.
        self._telling = threading.Lock()
        self.assignment: Assignment | None = state.load(_ASSIGNMENT, Assignment)
        #: It is not on disk yet: the disk is full.
        self._unsaved = False

    def start(self) -> None:
        """Begin to keep the node set up."""
        threading.Thread(target=self._keep, name="node-setup", daemon=True).start()
        threading.Thread(target=self._watch, name="node-watch", daemon=True).start()

    def close(self) -> None:
        """End looking; what is set up stays."""
        self._stop.set()
        self._poked.set()

    def assign(self, assignment: Assignment) -> None:
        """What a controller told, but for peers, which are told on their own and stay. The set-up follows at once, in
        its own thread.
        """
        with self._telling:
            peers = self.assignment.peers if self.assignment is not None else []
            self._take(msgspec.structs.replace(assignment, peers=peers))

    def tell_peers(self, peers: list[Peer]) -> None:
        """All other nodes. The set-up follows likewise, but nobody waits for it."""
        with self._telling:
            if self.assignment is not None:
                self._take(msgspec.structs.replace(self.assignment, peers=peers))

    def connect(self, targets: Sequence[str]) -> None:
        """The controllers that the switch is connected to (OpenFlow); not none. Nothing else depends on them: nobody
        waits for it.
        """
        with self._telling:
            if self.assignment is not None and targets:
                self._take(msgspec.structs.replace(self.assignment, openflow_targets=sorted(targets)))

    def _take(self, assignment: Assignment) -> None:
        before = self.assignment
        if assignment == before:
            return
        self.assignment = assignment
        self._save(assignment)
        if before is not None and before.openflow_targets != assignment.openflow_targets:
            changed = self._ovsdb.begin(integration.controllers(self._targets), "controllers")
            changed.add_done_callback(_log_refusal)
            log.info("the switch has other controllers", controllers=assignment.openflow_targets)
            before = msgspec.structs.replace(before, openflow_targets=assignment.openflow_targets)
            if assignment == before and self._complete.is_set():
                return
        if before is None or assignment.own() != before.own():
            self._complete.clear()
        self._poked.set()

    def _save(self, assignment: Assignment) -> None:
        """For a later agent, that starts without a controller. What cannot be written is in force all the same."""
        try:
            self._state.save(_ASSIGNMENT, assignment)
        except StateError as problem:
            if not self._unsaved:
                log.warning("what the controller assigned is not on disk", error=str(problem))
            self._unsaved = True
        else:
            self._unsaved = False

    def _targets(self) -> list[str]:
        return self.assignment.openflow_targets if self.assignment is not None else []

    def serve(self, frontends: Frontends) -> None:
        """What Services need of the node. It follows at once where the node is set up, else with the set-up."""
        with self._applying:
            before, self._frontends = self._in_force, frontends
            facts = self.facts
            if facts is None or before is None:
                return
            try:
                with Netlink() as node:
                    announcing.serve(node, facts, frontends.announced)
                    gateway.serve(node, facts, before.routed, frontends.routed)
                self._forget(facts, firewall.serve(before, frontends))
                self._in_force = frontends
            except FAILURES as problem:
                # Something else than what was thought is there: look at all of it.
                log.warning("Services are set up anew", error=str(problem))
                self._in_force = None
                self._poked.set()

    def poke(self) -> None:
        """Look again now."""
        self._poked.set()

    @property
    def complete(self) -> bool:
        """Whether all that the node's own pods need is as it should be, as far as was seen last."""
        return self._complete.is_set()

    @property
    def trouble(self) -> str:
        """Why it is not complete."""
        if self.assignment is None:
            return "no controller has assigned ranges to this node yet"
        return self._last_error

    def wait_complete(self, seconds: float) -> bool:
        """Wait until everything is in place that the node's own pods need."""
        return self._complete.wait(max(0.0, seconds))

    def discover(self) -> NodeFacts:
        """Look at the node; on the userspace datapath, move the uplink. Any of FAILURES."""
        with Netlink() as node:
            found = self._uplink(node)
        self.facts = self._facts(found)
        return self.facts

    def run(self) -> None:
        """Everything once, in order. Any of FAILURES."""
        with self._telling:
            if self._unsaved and self.assignment is not None:
                self._save(self.assignment)
        with Netlink() as node:
            found = self._uplink(node)
            self.facts = facts = self._facts(found)
            assignment = self.assignment
            if assignment is None:
                return
            self._bridge(facts)
            self._apply(node, facts, assignment)
            if facts.datapath == "netdev":
                tunnelroutes.tell(self._vswitchd, node)
        self._own_ports.look(assignment)
        self._serve_peers(facts, found, assignment)
        with self._telling:
            # What is new of other nodes meanwhile is done next.
            if self.assignment is None or assignment.own() != self.assignment.own():
                return
            self._last_error = ""
            if not self._complete.is_set():
                log.info("the node is set up", node=facts.name, ranges=assignment.pod_ranges, mtu=facts.mtu)
            self._complete.set()

    # --- parts

    def _bridge(self, facts: NodeFacts) -> None:
        mended = Mended()
        self._ovsdb.change("make br-int", integration.bridge(facts, self._targets, mended))
        made_of = facts.datapath, facts.datapath_id, facts.encapsulation, facts.mtu, mended.targets
        self._tell(INTEGRATION_BRIDGE, made_of, mended)

    def _tell(self, name: str, made_of: object, mended: Mended) -> None:
        """This is as it must be now. What was not is drift, unless it must be another than before."""
        if self._made.get(name) == made_of:
            for kind, what in mended.found:
                log.warning("mended", kind=kind, what=what)
                self._found(kind, what)
        self._made[name] = made_of

    def _apply(self, node: Netlink, facts: NodeFacts, assignment: Assignment) -> None:
        # What is new of other nodes cannot be in the way of the node's own.
        if self._known is not None:
            assignment = msgspec.structs.replace(assignment, peers=self._known)
        with self._applying:
            self._in_force = None
            frontends = self._frontends
            index = gateway.furnish(node, facts, assignment, (mended := Mended()), frontends.routed)
            self._tell(GATEWAY_INTERFACE, (index, facts.mtu), mended)
            self._forget(facts, firewall.enforce(facts, assignment, frontends))
            self._known = assignment.peers
            announcing.serve(node, facts, frontends.announced)
            self._in_force = frontends

    def _serve_peers(self, facts: NodeFacts, found: Uplink, assignment: Assignment) -> None:
        """What other nodes need of this one. Pods are added whether or not it can be done."""
        try:
            if assignment.peers != self._known:
                with self._applying:
                    self._forget(facts, firewall.enforce(facts, assignment, self._frontends))
                self._known = assignment.peers
            if facts.datapath == "netdev":
                neighbours.tell(self._vswitchd, found.interfaces(), assignment.peers)
        except FAILURES as problem:
            if str(problem) != self._peers_error:
                log.warning("what other nodes need of this one waits", error=str(problem))
            self._peers_error = str(problem)
        else:
            if self._peers_error:
                log.info("what other nodes need of this one is in place")
            self._peers_error = ""

    def _forget(self, facts: NodeFacts, changed: Iterable[firewall.Served]) -> None:
        """UDP clients that go on sending are translated as it is now."""
        stale: set[conntrack.Destination] = set()
        for item in changed:
            if item.protocol != "udp":
                continue
            if isinstance(item, NodePort):
                stale |= {(own, item.port) for own in facts.addresses if own.version == item.version}
            else:
                stale.add((item.address, item.port))
        forgotten = conntrack.forget_udp(stale) if stale else 0
        if forgotten:
            log.info(
                "connections forgotten", connections=forgotten, ports=sorted({port for _a, port in stale})
            )

    def _uplink(self, node: Netlink) -> Uplink:
        if self._settings.datapath == "system":
            found = uplink.look(node, self._settings.uplink)
            if not found.addresses and not self._settings.node_addresses:
                raise UplinkError(f"uplink: interface {found.name} has no global address")
            return found
        found = uplink.known(node, self._state, self._settings.uplink)
        mended = Mended()
        self._ovsdb.change("make br-phy", uplink.bridge(found, mended))
        self._tell(PHYSICAL_BRIDGE, (found.name, found.mac), mended)
        uplink.move(node, found)
        return found

    def _facts(self, found: Uplink) -> NodeFacts:
        told = self._settings.node_addresses
        # The userspace datapath's tunnels end on br-phy and nowhere else.
        addresses = uplink.node_addresses(found, told, here=self._settings.datapath == "netdev")
        tunnel = addresses[0]
        return NodeFacts(
            name=self._settings.node_name,
            uid=self._state.node_uid(),
            addresses=addresses,
            tunnel_address=tunnel,
            mac=found.mac,
            interface=PHYSICAL_BRIDGE if self._settings.datapath == "netdev" else found.name,
            uplink=found.name,
            encapsulation=self._settings.encapsulation,
            datapath=self._settings.datapath,
            mtu=mtu.pod_mtu(found.mtu, self._settings.encapsulation, tunnel.version, self._settings.mtu),
            labels=dict(label.split("=", 1) for label in self._settings.node_labels),
        )

    # --- threads

    def _keep(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            self._poked.wait(pause)
            self._poked.clear()
            if self._stop.is_set():
                return
            try:
                self.run()
                pause = _RETRY_SECONDS if self._peers_error else _EVERY_SECONDS
            except FAILURES as problem:
                self._complete.clear()
                text = str(problem)
                if text != self._last_error:
                    log.warning("the node's set-up waits", error=text)
                self._last_error = text
                pause = _RETRY_SECONDS
                self._stop.wait(0.1)

    def _watch(self) -> None:
        ours = (PHYSICAL_BRIDGE, GATEWAY_INTERFACE, self._settings.uplink)
        with Netlink(groups=netlink.GROUP_LINK) as events:
            while not self._stop.is_set():
                try:
                    names = {link.get_attr("IFLA_IFNAME") for _kind, link in events.events()}
                except TimeoutError:
                    continue
                except OSError as problem:
                    if problem.errno != errno.ENOBUFS:
                        raise
                    names = set(ours)  # events were lost: look at everything
                if names & set(ours):
                    self._poked.set()


def _log_refusal(changed: Future[None]) -> None:
    """Controllers that could not be set: the next look at the whole tries again."""
    if not changed.cancelled() and (problem := changed.exception()) is not None:
        log.warning("the switch's controllers cannot be set", error=str(problem))


def wait_for_facts(setup: NodeSetup, stop: threading.Event) -> NodeFacts | None:
    """The node's facts, as soon as Open vSwitch lets them be found; None when asked to end before."""
    told = ""
    while not stop.is_set():
        try:
            return setup.discover()
        except FAILURES as problem:
            if str(problem) != told:
                told = str(problem)
                log.warning("the node cannot be looked at yet", error=told)
            time.sleep(_RETRY_SECONDS)
    return None
