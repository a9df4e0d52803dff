# SPDX-License-Identifier: Apache-2.0
"""What a port of a real switch is forbidden by OpenFlow is allowed again, and told."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from agent.portconfig import PortConfigs
from sdn.openflow import (
    CodecError,
    PortConfig,
    PortDescription,
    decode_port_descs,
    decode_port_status,
    multipart_body,
    port_desc_request,
    port_mod,
)
from sdn.openflow.wire import HEADER, OFP_VERSION
from tests.switch.ovs import PrivateSwitch, SwitchError, running_switch, wait_until

pytestmark = pytest.mark.switch

PATIENCE = 60.0

switch = pytest.fixture(running_switch)


class Kept:
    """A keeper of a switch's ports, and what it tells."""

    def __init__(self, switch: PrivateSwitch) -> None:
        self.said: SimpleQueue[tuple[str, str]] = SimpleQueue()
        socket = switch.folder / f"{switch.bridge}.mgmt"
        self.configs = PortConfigs(socket, lambda kind, what: self.said.put((kind, what)))

    def next(self) -> tuple[str, str]:
        return self.said.get(timeout=PATIENCE)


@pytest.fixture
def kept(switch: PrivateSwitch) -> Iterator[Kept]:
    """Not started; the switch has two ports."""
    for number in (1, 2):
        switch.add_port(f"p{number}", number)
    found = Kept(switch)
    yield found
    found.configs.close()


def configs(switch: PrivateSwitch) -> dict[str, PortConfig]:
    """What each port is forbidden, but for the bridge's own, which is down."""
    return {port.name: port.config for port in described(switch) if port.name != switch.bridge}


def described(switch: PrivateSwitch) -> list[PortDescription]:
    with switch.connect() as connection:
        answers = connection.transact(port_desc_request(1))
    whole = (
        HEADER.pack(OFP_VERSION, answer.type, 8 + len(answer.body), answer.xid) + answer.body
        for answer in answers
    )
    return [port for message in whole for port in decode_port_descs(multipart_body(message))]


ALLOWED = {"p1": PortConfig(0), "p2": PortConfig(0)}


@pytest.mark.parametrize("what", ["no-receive", "no-forward", "no-packet-in"])
def test_what_a_port_is_forbidden_is_allowed_again_and_told(
    switch: PrivateSwitch, kept: Kept, what: str
) -> None:
    kept.configs.start()
    for _ in range(2):
        switch.ofctl("mod-port", "p1", what)
        assert kept.next() == ("changed", f"port p1: {what}")
        wait_until(lambda: configs(switch) == ALLOWED, "the port to be allowed it")
    assert kept.said.empty()


def test_what_it_was_forbidden_before_is_found_and_all_of_it_told(switch: PrivateSwitch, kept: Kept) -> None:
    switch.ofctl("mod-port", "p2", "no-receive")
    switch.ofctl("mod-port", "p2", "no-forward")
    assert configs(switch)["p2"] == PortConfig.NO_RECEIVE | PortConfig.NO_FORWARD
    kept.configs.start()
    assert kept.next() == ("changed", "port p2: no-receive,no-forward")
    wait_until(lambda: configs(switch) == ALLOWED, "the port to be allowed it")


def test_a_switch_that_is_started_anew_is_followed_again(switch: PrivateSwitch, kept: Kept) -> None:
    kept.configs.start()
    switch.ofctl("mod-port", "p1", "no-forward")
    kept.next()
    switch.restart_vswitchd()
    wait_until(lambda: configs(switch) == ALLOWED, "the ports")
    switch.ofctl("mod-port", "p1", "no-receive")
    assert kept.next() == ("changed", "port p1: no-receive")


def test_a_port_that_is_down_is_left(switch: PrivateSwitch, kept: Kept) -> None:
    switch.ofctl("mod-port", "p1", "down")
    kept.configs.start()
    switch.ofctl("mod-port", "p2", "no-forward")
    assert kept.next() == ("changed", "port p2: no-forward")
    wait_until(lambda: configs(switch)["p2"] == 0, "the port to be allowed it")
    assert configs(switch)["p1"] == PortConfig.DOWN


def test_another_port_under_the_number_is_not_changed(switch: PrivateSwitch, kept: Kept) -> None:
    port = next(port for port in described(switch) if port.name == "p1")
    other = port._replace(hardware_address=bytes(6))
    with switch.connect() as connection, pytest.raises(SwitchError):
        connection.transact(port_mod(other, PortConfig.NO_FORWARD, PortConfig.NO_FORWARD, 7))
    assert configs(switch) == ALLOWED


def test_bits_are_named_as_people_know_them() -> None:
    assert str(PortConfig.NO_RECEIVE | PortConfig.NO_PACKET_IN) == "no-receive,no-packet-in"
    assert str(PortConfig(1 << 30 | 1)) == "down,0x40000000"


@pytest.mark.parametrize("cut", [0, 39])
def test_a_port_that_is_cut_short_is_malformed(cut: int) -> None:
    port = struct.pack("!IH2x6s2x16sII", 1, 40, bytes(6), b"p1", 0, 0)
    status = struct.pack("!BBHIB7x", 6, 12, 16 + cut, 1, 0) + port[:cut]
    with pytest.raises(CodecError):
        decode_port_status(status)
    with pytest.raises(CodecError):
        list(decode_port_descs(port + port[: cut or 1]))


@pytest.mark.parametrize("length", [0, 39, 41, 0xFFFF])
def test_a_port_that_says_another_length_is_malformed(length: int) -> None:
    port = struct.pack("!IH2x6s2x16sII", 1, length, bytes(6), b"p1", 0, 0)
    with pytest.raises(CodecError):
        list(decode_port_descs(port))
