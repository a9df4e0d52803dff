# SPDX-License-Identifier: Apache-2.0
"""A pod can speak only as itself: forged MAC, IPv4, IPv6, ARP and ND never reach anybody.

Raw frames are sent from inside the attacker's namespace and looked for at the victim's interface. Every forgery is
followed by an honest frame on the same way, which must arrive: then the forged one, sent before, would have, too.
"""

import uuid
from collections.abc import Iterator

import pytest

from sdn.lab.lab import Lab
from sdn.lab.state import PodRecord
from tests.lab import labs, traffic
from tests.lab.traffic import Tap

STRANGER_MAC = "0a:58:0a:63:63:63"


class Scene:
    """An attacker, a victim on the same node or another, and a third pod whose identity is stolen."""

    def __init__(self, attacker: PodRecord, victim: PodRecord, third: PodRecord) -> None:
        self.attacker, self.victim, self.third = attacker, victim, third
        # What the attacker itself would send to: the victim on the same node, the gateway for another.
        gateway = "0a:58:00:00:00:01"
        self.next_hop = victim.mac if attacker.node == victim.node else gateway

    def datagram(
        self, family: int, token: bytes, *, source: str | None = None, source_mac: str | None = None
    ) -> bytes:
        own = source or self.attacker.addresses[family]
        kind, packet = traffic.udp_packet(own, self.victim.addresses[family], token)
        return traffic.ethernet(source_mac or self.attacker.mac, self.next_hop, kind, packet)


@pytest.fixture(scope="module", params=["same node", "other node"])
def scene(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Scene]:
    word = request.param.split()[0]
    other = "node-1" if word == "same" else "node-2"
    attacker = lab.pod_add(f"attacker-{word}", node="node-1")
    victim = lab.pod_add(f"victim-{word}", node=other)
    third = lab.pod_add(f"third-{word}", node=other)
    assert labs.unreachable(lab.ping_matrix(attempts=5)) == []
    yield Scene(attacker, victim, third)


def token(kind: str) -> bytes:
    return f"{kind}-{uuid.uuid4()}".encode()


def assert_stopped(scene: Scene, family: int, forged: bytes, mark: bytes) -> None:
    """The forged frame, sent three times, does not arrive; the honest one after it does."""
    honest = token("honest")
    with Tap(scene.attacker.netns) as mouth, Tap(scene.victim.netns) as eyes:
        for _ in range(3):
            mouth.send(forged)
        seen: list[bytes] = []

        def fence(frame: bytes) -> bool:
            seen.append(frame)
            return honest in frame

        mouth.send(scene.datagram(family, honest))
        assert eyes.wait_for(fence), "the honest frame did not arrive, so nothing is proven"
        # Frames of different flows may overtake each other by a moment inside the switch.
        eyes.wait_for(fence, seconds=0.5)
        assert not [frame.hex() for frame in seen if mark in frame]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_another_source_mac_is_stopped(scene: Scene, family: int) -> None:
    for forged_mac in (scene.third.mac, STRANGER_MAC):
        mark = token("mac")
        assert_stopped(scene, family, scene.datagram(family, mark, source_mac=forged_mac), mark)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_another_source_address_is_stopped(lab: Lab, scene: Scene, family: int) -> None:
    node = lab.spec.node("node-1")
    addresses = (
        scene.third.addresses[family],
        (node.ipv4, node.ipv6)[family],
        ("198.51.100.9", "2001:db8::9")[family],
    )
    for address in addresses:
        mark = token("address")
        assert_stopped(scene, family, scene.datagram(family, mark, source=address), mark)


def test_arp_that_claims_anothers_address_reaches_nobody(scene: Scene) -> None:
    stolen = scene.third.addresses[0]
    victim = scene.victim
    for operation, target_mac in ((1, "00:00:00:00:00:00"), (2, victim.mac)):
        packet = traffic.arp(operation, scene.attacker.mac, stolen, target_mac, victim.addresses[0])
        for destination in (victim.mac, traffic.BROADCAST):
            forged = traffic.ethernet(scene.attacker.mac, destination, traffic.ETH_P_ARP, packet)
            assert_stopped(scene, 0, forged, packet[8:18])


def test_arp_with_anothers_mac_reaches_nobody(scene: Scene) -> None:
    packet = traffic.arp(
        2, scene.third.mac, scene.attacker.addresses[0], scene.victim.mac, scene.victim.addresses[0]
    )
    for source in (scene.attacker.mac, scene.third.mac):
        assert_stopped(
            scene, 0, traffic.ethernet(source, scene.victim.mac, traffic.ETH_P_ARP, packet), packet[8:18]
        )


def test_forged_arp_is_not_answered_but_honest_arp_is(scene: Scene) -> None:
    attacker = scene.attacker

    def ask(sender: str) -> bytes:
        packet = traffic.arp(1, attacker.mac, sender, "00:00:00:00:00:00", gateway_of(attacker))
        return traffic.ethernet(attacker.mac, traffic.BROADCAST, traffic.ETH_P_ARP, packet)

    def answer(frame: bytes) -> bool:
        return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2"

    with Tap(attacker.netns) as tap:
        tap.send(ask(scene.third.addresses[0]))
        assert not tap.wait_for(answer, seconds=1)
        tap.send(ask(attacker.addresses[0]))
        assert tap.wait_for(answer)


def gateway_of(pod: PodRecord) -> str:
    return f"{pod.addresses[0].rpartition('.')[0]}.1"


def test_a_neighbour_advertisement_for_anothers_address_reaches_nobody(scene: Scene) -> None:
    victim, stolen = scene.victim.addresses[1], scene.third.addresses[1]
    for source in (scene.attacker.addresses[1], stolen):
        packet = traffic.neighbour_advertisement(source, victim, stolen, scene.attacker.mac)
        for destination in (scene.victim.mac, scene.next_hop):
            forged = traffic.ethernet(scene.attacker.mac, destination, traffic.ETH_P_IPV6, packet)
            assert_stopped(scene, 1, forged, packet[40:])


def test_a_neighbour_advertisement_does_not_pass_as_a_fragment(scene: Scene) -> None:
    """Open vSwitch does not look for an ICMPv6 type in fragments; RFC 6980 forbids to send such ones."""
    victim, stolen = scene.victim.addresses[1], scene.third.addresses[1]
    packet = traffic.neighbour_advertisement(scene.attacker.addresses[1], victim, stolen, scene.attacker.mac)
    fragment = traffic.first_fragment(packet)
    forged = traffic.ethernet(scene.attacker.mac, scene.next_hop, traffic.ETH_P_IPV6, fragment)
    assert_stopped(scene, 1, forged, packet[40:])


def test_a_neighbour_solicitation_from_anothers_address_reaches_nobody_and_is_not_answered(
    scene: Scene,
) -> None:
    attacker, stolen = scene.attacker, scene.third.addresses[1]
    destination, packet = traffic.neighbour_solicitation(stolen, scene.victim.addresses[1], attacker.mac)
    forged = traffic.ethernet(attacker.mac, destination, traffic.ETH_P_IPV6, packet)
    assert_stopped(scene, 1, forged, packet[40:])

    def advertisement(frame: bytes) -> bool:
        return frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 136

    with Tap(attacker.netns) as tap:
        tap.send(forged)
        assert not tap.wait_for(advertisement, seconds=1)


def test_the_victim_still_knows_the_third_pod_by_its_own_mac(lab: Lab, scene: Scene) -> None:
    """After all that was tried above, neighbour tables hold what is true, and packets go where they should."""
    shown = lab.run(scene.victim.full_name, "ip", "neigh", "show").stdout
    assert scene.attacker.mac not in [
        line.split()[line.split().index("lladdr") + 1]
        for line in shown.splitlines()
        if "lladdr" in line.split() and line.split()[0] in scene.third.addresses
    ]
    assert labs.unreachable(lab.ping_matrix()) == []
