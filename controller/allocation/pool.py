# SPDX-License-Identifier: Apache-2.0
"""Pools: what there is a limited number of, who holds which, and which free one is next.

Free ones are given in turn, not the lowest first: what was just given back is given again as late as possible,
so that clients which still use it meet nobody else. A pool may keep its lowest part for those who ask for a
certain one, as Kubernetes does (KEP-3070, KEP-3668): it is given to others only when the rest is taken.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from controller.allocation.network import within
from sdn.model.names import IPAddress, Network

#: Namespace and name of a Service.
Holder = tuple[str, str]


class Turns:
    """Which of the numbers ``first`` to ``last`` is next. Knows nothing of who holds them."""

    def __init__(self, first: int, last: int, kept: int = 0) -> None:
        """The lowest ``kept`` numbers are given last."""
        self._first = first
        self._last = last
        self._usual = first + kept
        self._next = self._usual

    def choose(self, free: Callable[[int], bool]) -> int | None:
        """The next number that is free; None when none is."""
        for part in (
            range(self._next, self._last + 1),
            range(self._usual, self._next),
            range(self._first, self._usual),
        ):
            for number in part:
                if free(number):
                    return number
        return None

    def given(self, number: int) -> None:
        """The number was taken: the next turn begins after it."""
        if number >= self._usual:
            self._next = number + 1 if number < self._last else self._usual


class AddressPool:
    """Addresses of some ranges, each held by at most one Service."""

    def __init__(self, networks: Sequence[Network], cluster_ips: bool) -> None:
        """``cluster_ips``: the networks' first and last addresses are nobody's, low ones are kept for those who
        ask for them.
        """
        self.networks = tuple(networks)
        self._cluster_ips = cluster_ips
        self._turns = [_turns(network, cluster_ips) for network in self.networks]
        self._holders: dict[IPAddress, Holder] = {}

    def __contains__(self, address: IPAddress) -> bool:
        """Whether the address may be given from this pool."""
        if self._cluster_ips:
            return any(within(address, network) for network in self.networks)
        return any(address in network for network in self.networks if network.version == address.version)

    def serves(self, version: int) -> bool:
        """Whether there are addresses of a family."""
        return any(network.version == version for network in self.networks)

    def holder(self, address: IPAddress) -> Holder | None:
        return self._holders.get(address)

    def choose(self, version: int, refused: Callable[[IPAddress], bool]) -> IPAddress | None:
        """The next free address of a family that is not ``refused``; None when there is none."""
        kind: Callable[[int], IPAddress]
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address

        def free(number: int) -> bool:
            address = kind(number)
            return address not in self._holders and not refused(address)

        for network, turns in zip(self.networks, self._turns, strict=True):
            if network.version == version and (number := turns.choose(free)) is not None:
                return kind(number)
        return None

    def take(self, address: IPAddress, holder: Holder) -> None:
        self._holders[address] = holder
        for network, turns in zip(self.networks, self._turns, strict=True):
            if network.version == address.version and address in network:
                turns.given(int(address))

    def give_back(self, address: IPAddress, holder: Holder) -> None:
        """What is held by another is left alone."""
        if self._holders.get(address) == holder:
            del self._holders[address]


class PortPool:
    """Node ports. The same number may be held twice, for two protocols."""

    def __init__(self, ports: range) -> None:
        self.ports = ports
        self._turns = Turns(ports[0], ports[-1], _kept(len(ports), 32, 128))
        self._holders: dict[tuple[str, int], Holder] = {}

    def __str__(self) -> str:
        return f"{self.ports[0]}-{self.ports[-1]}"

    def holder(self, protocol: str, port: int) -> Holder | None:
        return self._holders.get((protocol, port))

    def choose(self, protocols: Sequence[str], refused: Callable[[int], bool]) -> int | None:
        """The next port that is free for all these protocols and not ``refused``; None when there is none."""
        return self._turns.choose(
            lambda port: (
                not refused(port) and not any((protocol, port) in self._holders for protocol in protocols)
            )
        )

    def take(self, protocol: str, port: int, holder: Holder) -> None:
        self._holders[protocol, port] = holder
        if port in self.ports:
            self._turns.given(port)

    def give_back(self, protocol: str, port: int, holder: Holder) -> None:
        """What is held by another is left alone."""
        if self._holders.get((protocol, port)) == holder:
            del self._holders[protocol, port]


def _turns(network: Network, cluster_ips: bool) -> Turns:
    first, last = int(network.network_address), int(network.broadcast_address)
    if not cluster_ips:
        return Turns(first, last)
    if network.version == 4:
        last -= 1
    return Turns(first + 1, last, _kept(last - first, 16, 256))


def _kept(size: int, part: int, most: int) -> int:
    """How many of ``size`` are kept for those who ask for a certain one: a ``part``-th, 16 to ``most``."""
    return 0 if size <= 16 else min(max(16, size // part), most, size - 1)
