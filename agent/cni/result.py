# SPDX-License-Identifier: Apache-2.0
"""What ADD prints: the result object in the form of the version that the runtime asked for.

Sources: CNI specification 1.1.0, section 5 ("Result types"), and the same sections of 0.3.1 (which 0.4.0
repeats) and 1.0.0. They differ in two points: up to 0.4.0 each entry of `ips` has `version` ("4" or "6"), and
since 1.1.0 interfaces have `mtu`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.cni.errors import CniError, Code
from agent.cni.request import Dns

OLD = ("0.3.1", "0.4.0")


@dataclass(frozen=True)
class Interface:
    """One end of the pod's link; `sandbox` is the path of its network namespace, empty on the node's side."""

    name: str
    mac: str
    mtu: int
    sandbox: str = ""


@dataclass(frozen=True)
class Result:
    """What was made: the node's end, the pod's end, its addresses with their gateways, and its routes."""

    node_side: Interface
    pod_side: Interface
    addresses: tuple[tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, str], ...]
    dns: Dns


def document(result: Result, version: str, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The result as JSON objects. `previous` is what an earlier plugin of the chain made: ours comes after it."""
    made: dict[str, list[Any]] = {
        key: list((previous or {}).get(key) or []) for key in ("interfaces", "ips", "routes")
    }
    base = len(made["interfaces"])
    for interface in (result.node_side, result.pod_side):
        entry: dict[str, Any] = {"name": interface.name, "mac": interface.mac}
        if interface.sandbox:
            entry["sandbox"] = interface.sandbox
        if version not in (*OLD, "1.0.0"):
            entry["mtu"] = interface.mtu
        made["interfaces"].append(entry)
    for address, gateway in result.addresses:
        ip: dict[str, Any] = {"address": str(address), "gateway": gateway, "interface": base + 1}
        if version in OLD:
            ip["version"] = str(address.version)
        made["ips"].append(ip)
        made["routes"].append({"dst": "0.0.0.0/0" if address.version == 4 else "::/0", "gw": gateway})
    return {"cniVersion": version, **made, "dns": _dns(result.dns, (previous or {}).get("dns"))}


def cluster_dns(
    namespace: str,
    domain: str,
    servers: Iterable[str],
    addresses: Iterable[ipaddress.IPv4Interface | ipaddress.IPv6Interface],
) -> Dns:
    """How a pod resolves names, as the kubelet sets it up for dnsPolicy ClusterFirst (Kubernetes documentation, "DNS
    for Services and Pods"): short names are looked for in the pod's own namespace first.

    `servers` are the cluster's; those of families that the pod does not have are left out. Empty when none is left.
    """
    families = {address.version for address in addresses}
    reached = tuple(text for text in servers if ipaddress.ip_address(text).version in families)
    if not reached or not domain:
        return Dns()
    search = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    return Dns(nameservers=reached, domain=search[0], search=search, options=("ndots:5",))


def chosen_dns(told: Dns, previous: Mapping[str, Any] | None, cluster: Dns) -> Dns:
    """The cluster's settings only where neither the configuration nor an earlier plugin of the chain has any: servers
    of the one with the search list of the other resolve nothing.
    """
    return cluster if told == Dns() and not (previous or {}).get("dns") else told


def refuse_double(previous: Mapping[str, Any] | None, ifname: str) -> None:
    """CniError INVALID_CONFIGURATION when an earlier plugin of the chain made the interface that we are asked for."""
    for interface in (previous or {}).get("interfaces") or []:
        if interface.get("sandbox") and interface.get("name") == ifname:
            raise CniError(
                Code.INVALID_CONFIGURATION,
                f"prevResult: an earlier plugin of the chain has made {ifname} already",
            )


def _dns(dns: Dns, previous: Any) -> dict[str, Any]:
    ours: dict[str, Any] = {
        "nameservers": list(dns.nameservers),
        "domain": dns.domain,
        "search": list(dns.search),
        "options": list(dns.options),
    }
    ours = {key: value for key, value in ours.items() if value}
    return {**previous, **ours} if isinstance(previous, dict) else ours
