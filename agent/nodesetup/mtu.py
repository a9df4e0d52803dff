# SPDX-License-Identifier: Apache-2.0
"""How large a pod's packets may be: the uplink's MTU less what travels around them between nodes.

Encapsulated, a pod's packet is followed outwards by its own Ethernet header and the tunnel's headers:

    outer IP    IPv4 20 (RFC 791), IPv6 40 (RFC 8200)
    Geneve      UDP 8 (RFC 768) + 8 (RFC 8926 section 3.1, no options) + inner Ethernet 14
    VXLAN       UDP 8 + 8 (RFC 7348 section 5) + inner Ethernet 14
    GRE         4 (RFC 2784) + key 4 (RFC 2890) + inner Ethernet 14

The outer Ethernet header does not count, since an MTU is the size of an IP packet.
"""

from __future__ import annotations

from typing import Final

_OUTER: Final = {4: 20, 6: 40}
_TUNNEL: Final = {"geneve": 8 + 8, "vxlan": 8 + 8, "gre": 4 + 4}
_INNER_ETHERNET: Final = 14
#: Smallest MTU that IPv6 works with (RFC 8200 section 5).
IPV6_MINIMUM: Final = 1280
#: Every IPv4 host must take packets of this size (RFC 791 section 3.2); less is a mistake.
IPV4_MINIMUM: Final = 576


class MtuError(ValueError):
    """The MTU that would result is too small, or does not fit the uplink."""


def overhead(encapsulation: str, outer_version: int) -> int:
    """Bytes that the encapsulation adds: 50, 70 for Geneve and VXLAN, 42, 62 for GRE, over IPv4 and IPv6."""
    return _OUTER[outer_version] + _TUNNEL[encapsulation] + _INNER_ETHERNET


def pod_mtu(uplink: int, encapsulation: str, outer_version: int, override: int = 0) -> int:
    """A pod's MTU. MtuError names both figures when the override does not fit through the uplink."""
    fits = uplink - overhead(encapsulation, outer_version)
    if override > fits:
        raise MtuError(
            f"mtu: {override} does not fit through the uplink: its MTU is {uplink}, {encapsulation} over "
            f"IPv{outer_version} adds {uplink - fits}, so at most {fits}"
        )
    mtu = override or fits
    if mtu < IPV4_MINIMUM:
        raise MtuError(f"mtu: {mtu} is less than {IPV4_MINIMUM}, what every IPv4 host must take")
    return mtu
