# SPDX-License-Identifier: Apache-2.0
"""The simulated switch: flows and groups that come and go, and the packets that one runs through them.

switch = SimulatedSwitch(flows, groups)
journey = switch.run(tcp(in_port=16, ip_src="10.244.1.5", ip_dst="10.244.2.7", tcp_dst=80))
journey.ports, journey.outcomes[0].packet["tun_dst"]
print(journey)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sdn.pipeline.actions import Bucket
from sdn.pipeline.flow import Flow, Group
from sdn.simulator.buckets import Choose, first_bucket
from sdn.simulator.conntrack import Conntrack, new
from sdn.simulator.journey import Journey
from sdn.simulator.lookup import FlowTables
from sdn.simulator.packet import Packet
from sdn.simulator.translation import Tables, Translation


class SimulatedSwitch:
    """The flows and groups of one switch. Flows and groups may come and go between packets.

    ``down_ports`` are ports without link: buckets that watch them are not chosen.
    """

    def __init__(
        self,
        flows: Iterable[Flow] = (),
        groups: Iterable[Group] = (),
        down_ports: Iterable[int] = (),
    ) -> None:
        self.flows = FlowTables(flows)
        self.groups = {group.group_id: group for group in groups}
        self.down_ports = frozenset(down_ports)

    def run(
        self, packet: Packet, *, conntrack: Conntrack = new, choose: Choose = first_bucket, table: int = 0
    ) -> Journey:
        """What becomes of a packet, from ``table`` on.

        Raises AmbiguousFlowsError where two flows of one priority take the packet, UnsupportedPortError where
        a flow uses a port that is not simulated.
        """
        tables = Tables(self.flows, self.groups, self.down_ports)
        return Translation(tables, conntrack, choose).run(packet, table)

    def learn(self, journey: Journey) -> None:
        """Keep what a packet has taught the switch (``learn(...)``), for those after it. Time-outs never come here."""
        for flow in journey.learned:
            self.flows.add(flow)

    def runs(self, packet: Packet, *, conntrack: Conntrack = new, table: int = 0) -> Iterator[Journey]:
        """Every journey that the packet may make: one for each way in which select groups may choose."""
        prefix: list[int] = []
        while True:
            script = _Script(prefix)
            yield self.run(packet, conntrack=conntrack, choose=script.choose, table=table)
            taken = script.taken
            while taken and taken[-1][0] + 1 == taken[-1][1]:
                taken.pop()
            if not taken:
                return
            prefix = [place for place, _ in taken]
            prefix[-1] += 1


class _Script:
    """Chooses as told as far as it goes, then the first bucket, and remembers what there was to choose from."""

    def __init__(self, prefix: list[int]) -> None:
        self._prefix = prefix
        self.taken: list[tuple[int, int]] = []

    def choose(self, group: Group, packet: Packet, buckets: tuple[Bucket, ...]) -> Bucket:
        number = len(self.taken)
        place = self._prefix[number] if number < len(self._prefix) else 0
        self.taken.append((place, len(buckets)))
        return buckets[place]
