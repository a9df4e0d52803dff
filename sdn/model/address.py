# SPDX-License-Identifier: Apache-2.0
"""IP addresses and ranges as values: a version and an integer, which hash, compare and mask without thought."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address: ``version`` 4 or 6, ``value`` the integer."""

    version: int
    value: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From text without a prefix length. Raises ValueError."""
        address = ipaddress.ip_address(text)
        return cls(address.version, int(address))

    def __str__(self) -> str:
        return str(
            ipaddress.IPv4Address(self.value) if self.version == 4 else ipaddress.IPv6Address(self.value)
        )


@dataclass(frozen=True, slots=True)
class Range:
    """A range of addresses in CIDR form: ``network`` is its first address."""

    version: int
    network: int
    prefix_length: int

    @classmethod
    def parse(cls, text: str) -> Range:
        """From CIDR text; host bits must be zero. Raises ValueError."""
        network = ipaddress.ip_network(text)
        return cls(network.version, int(network.network_address), network.prefixlen)

    @classmethod
    def of(cls, address: Address) -> Range:
        """The range that holds one address alone."""
        return cls(address.version, address.value, 32 if address.version == 4 else 128)

    @property
    def gateway(self) -> Address:
        """The address of the node's gateway port in this range: the first one after the network's own."""
        return Address(self.version, self.network + 1)

    def __contains__(self, address: Address) -> bool:
        shift = (32 if self.version == 4 else 128) - self.prefix_length
        return address.version == self.version and address.value >> shift == self.network >> shift

    def __str__(self) -> str:
        return f"{Address(self.version, self.network)}/{self.prefix_length}"
