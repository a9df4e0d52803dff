# SPDX-License-Identifier: Apache-2.0
"""Services for tests of a node: what a controller would tell of them, and what of them is found on the node."""

from __future__ import annotations

import json

import pytest

from sdn.v1 import controller_pb2 as messages
from tests.node.node import Node

NODE_PORT = {4: "169.254.0.252", 6: "fd5d:17d0:17d0::fc"}
HAIRPIN = {4: "169.254.0.253", 6: "fd5d:17d0:17d0::fd"}
NEXT_HOP = {4: "169.254.0.254", 6: "fd5d:17d0:17d0::fe"}
SERVICE = {4: "10.97.0.50", 6: "fd00:10:97::50"}
BALANCED = {4: "172.31.0.193", 6: "fd00:31::c1"}
OUTSIDE = {4: "172.31.0.1", 6: "fd00:31::1"}
VERSIONS = pytest.mark.parametrize("version", [4, 6])


def address(node: Node, version: int) -> str:
    return node.ipv4 if version == 4 else node.ipv6


def service(name: str = "web", *, node_port: int = 0, **fields: object) -> messages.ServiceState:
    state = messages.ServiceState(
        namespace="default",
        name=name,
        type="NodePort" if node_port else "ClusterIP",
        cluster_ips=[SERVICE[4], SERVICE[6]],
        ports=[
            messages.ServicePortState(name="a", protocol="TCP", port=80, node_port=node_port),
            messages.ServicePortState(name="b", protocol="UDP", port=80, node_port=node_port),
        ],
    )
    state.MergeFrom(messages.ServiceState(**fields))
    return state


def elements(node: Node, name: str) -> set[tuple[object, ...]]:
    listed = json.loads(node.exec("nft", "-j", "list", "set", "inet", "sdn", name))["nftables"]
    held = next(item["set"] for item in listed if "set" in item)
    return {tuple(element["concat"]) for element in held.get("elem", [])}


def node_ports(node: Node) -> set[tuple[object, ...]]:
    return elements(node, "node-ports-4") | elements(node, "node-ports-6")


def routes(node: Node, version: int = 4, *more: str) -> str:
    return node.exec("ip", f"-{version}", "route", "show", "dev", "sdn-gw0", *more)


def proxies(node: Node) -> str:
    return node.exec("ip", "neigh", "show", "proxy") + node.exec("ip", "-6", "neigh", "show", "proxy")
