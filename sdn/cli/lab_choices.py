# SPDX-License-Identifier: Apache-2.0
"""Choices of `sdnctl lab up`, as the command line shows and completes them."""

from __future__ import annotations

import enum


class Encapsulation(enum.StrEnum):
    GENEVE = "geneve"
    VXLAN = "vxlan"
    GRE = "gre"


class Datapath(enum.StrEnum):
    NETDEV = "netdev"
    SYSTEM = "system"


class Store(enum.StrEnum):
    SQLITE = "sqlite"
    ETCD = "etcd"


class Underlay(enum.StrEnum):
    IPV4 = "ipv4"
    IPV6 = "ipv6"
