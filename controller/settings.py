# SPDX-License-Identifier: Apache-2.0
"""What a controller can be told; see sdn/settings.py for the sources that a setting is taken from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

from controller.addresses import split_address
from controller.allocation.network import (
    ServiceNetwork,
    dns_addresses,
    load_balancer_ranges,
    node_ports,
    service_ranges,
)
from controller.ha import wire
from controller.ranges import ClusterRanges
from controller.store import AccessError, StoreAccess, StoreError
from controller.store.open import check_access, check_store_url
from sdn.model import InvalidObjectError
from sdn.model.names import check_dns_subdomain
from sdn.settings import Meta, Settings, as_written

#: Settings on which flows, addresses and what agents are told depend: all controllers on one store must have the same.
ALIKE: Final = (
    "cluster_ranges",
    "node_prefix_ipv4",
    "node_prefix_ipv6",
    "service_ranges",
    "load_balancer_ranges",
    "node_port_range",
    "cluster_domain",
    "dns",
    "dns_addresses",
)


class ControllerSettings(Settings, frozen=True, kw_only=True):
    """Settings of sdn-controller."""

    name: Annotated[
        str, Meta(description="Name of this controller, as agents and people see it.", min_length=1)
    ] = "controller-1"
    store: Annotated[
        str,
        Meta(
            description="Where everything is kept that must outlast the process: sqlite:///PATH, "
            "or etcd://HOST:PORT with further endpoints after commas."
        ),
    ] = "sqlite:///var/lib/sdn/controller/store.db"
    store_ca: Annotated[
        Path | None,
        Meta(
            description="Certificates (PEM) of those who sign etcd's certificates; this, or store_certificate, "
            "turns TLS on. Without this one, public authorities are trusted."
        ),
    ] = None
    store_certificate: Annotated[
        Path | None, Meta(description="Certificate (PEM) shown to etcd; needs store_key.")
    ] = None
    store_key: Annotated[Path | None, Meta(description="Private key (PEM) of store_certificate.")] = None
    store_user: Annotated[
        str, Meta(description="User to log in to etcd as, with store_password_file; empty: none.")
    ] = ""
    store_password_file: Annotated[
        Path | None,
        Meta(description="File with the password of store_user; read again whenever the login is renewed."),
    ] = None
    openflow_address: Annotated[str, Meta(description="Address and port on which switches connect.")] = (
        "127.0.0.1:6653"
    )
    openflow_targets: Annotated[
        tuple[str, ...],
        Meta(
            description="OpenFlow targets that agents set on their switches, such as tcp:172.30.0.101:6653. "
            "Empty: this host's address as the agent reaches it, with the port of openflow_address."
        ),
    ] = ()
    openflow_echo_seconds: Annotated[
        float, Meta(description="Seconds of silence after which a switch is asked for an echo.", gt=0)
    ] = 5.0
    openflow_echo_unanswered: Annotated[
        int, Meta(description="Echoes without any answer after which a switch is disconnected.", ge=1)
    ] = 3
    repair_at_once: Annotated[
        bool,
        Meta(
            description="Let switches tell what others change in them, and repair that at once. Off: it stays until "
            "the switch connects anew, for whoever wants to try something with ovs-ofctl."
        ),
    ] = True
    grpc_target: Annotated[
        str,
        Meta(
            description="Address and port at which agents and other controllers reach this one's gRPC; empty: "
            "grpc_address."
        ),
    ] = ""
    peers_address: Annotated[
        str,
        Meta(
            description="IP address and port on which other controllers on the same store hear this one, and at which "
            "they reach it: no name, and no loopback address where they are on other machines. Not used with SQLite."
        ),
    ] = "127.0.0.1:6655"
    lease_seconds: Annotated[
        float,
        Meta(
            description="Seconds after which a controller that cannot reach the store writes no switch any more.",
            ge=2,
        ),
    ] = 5.0
    grpc_address: Annotated[
        str, Meta(description="Address and port on which agents and clients connect; empty: none.")
    ] = "127.0.0.1:50051"
    grpc_socket: Annotated[
        str, Meta(description="Unix socket on which local clients connect, mode 0660; empty: none.")
    ] = "/run/sdn/controller.sock"
    cluster_ranges: Annotated[
        tuple[str, ...],
        Meta(
            description="Ranges that all pods have their addresses from, at most one a family.", min_length=1
        ),
    ] = ("10.244.0.0/16", "fd00:10:244::/48")
    node_prefix_ipv4: Annotated[
        int, Meta(description="Prefix length of a node's IPv4 range.", ge=8, le=30)
    ] = 24
    node_prefix_ipv6: Annotated[
        int, Meta(description="Prefix length of a node's IPv6 range.", ge=16, le=126)
    ] = 64
    service_ranges: Annotated[
        tuple[str, ...],
        Meta(
            description="Ranges that Services have their ClusterIPs from, at most one a family, the primary "
            "family's first; at most 20 host bits each. Families that cluster_ranges lacks are left out.",
            min_length=1,
        ),
    ] = ("10.96.0.0/16", "fd00:10:96::/112")
    load_balancer_ranges: Annotated[
        tuple[str, ...],
        Meta(
            description="Ranges that Services of type LoadBalancer have their external addresses from, each "
            "announced on the nodes' link by one node; empty: such Services get none."
        ),
    ] = ()
    node_port_range: Annotated[
        str,
        Meta(
            description="First and last port that Services get on every node. The nodes' translated clients "
            "use the ports below, so the first one is at least 9216."
        ),
    ] = "30000-32767"
    cluster_domain: Annotated[
        str, Meta(description="Domain under which Services have names: NAME.NAMESPACE.svc.DOMAIN.")
    ] = "cluster.local"
    dns: Annotated[
        bool,
        Meta(
            description="The agents serve DNS at dns_addresses. Under Kubernetes false: the addresses then belong "
            "to the cluster's own DNS server, and pods are told of them all the same."
        ),
    ] = True
    dns_addresses: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses of the cluster's DNS, inside service_ranges, at most one a family; empty: the "
            "tenth of each range."
        ),
    ] = ()
    openflow_certificate: Annotated[
        Path | None,
        Meta(description="Certificate (PEM) shown to switches; with openflow_key it turns TLS on."),
    ] = None
    openflow_key: Annotated[Path | None, Meta(description="Private key (PEM) of openflow_certificate.")] = (
        None
    )
    openflow_ca: Annotated[
        Path | None,
        Meta(description="Certificates (PEM) of those who sign switches' certificates; then required."),
    ] = None
    grpc_certificate: Annotated[
        Path | None,
        Meta(description="Certificate (PEM) shown to gRPC clients on TCP; with grpc_key it turns TLS on."),
    ] = None
    grpc_key: Annotated[Path | None, Meta(description="Private key (PEM) of grpc_certificate.")] = None
    grpc_ca: Annotated[
        Path | None,
        Meta(description="Certificates (PEM) of those who sign clients' certificates; then required."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("openflow_address", lambda: split_address(self.openflow_address))
        if self.grpc_address:
            _check("grpc_address", lambda: split_address(self.grpc_address))
        if not self.grpc_address and not self.grpc_socket:
            raise ValueError("grpc_address: must be given, or grpc_socket")
        _check("peers_address", lambda: split_address(self.peers_address))
        if self.grpc_target:
            _check("grpc_target", lambda: split_address(self.grpc_target))
        self._check_several()
        _check("name", lambda: check_dns_subdomain("", self.name))
        _check("store", lambda: check_store_url(self.store))
        self._check_store_access()
        _check("cluster_ranges", self.ranges)
        self._check_services()
        for target in self.openflow_targets:
            scheme, _, rest = target.partition(":")
            if scheme not in ("tcp", "ssl"):
                raise ValueError(f"openflow_targets: {target!r} is no target such as tcp:172.30.0.101:6653")
            _check("openflow_targets", functools.partial(split_address, rest))
        for part in ("openflow", "grpc"):
            certificate, key, ca = (getattr(self, f"{part}_{what}") for what in ("certificate", "key", "ca"))
            if (certificate is None) != (key is None):
                raise ValueError(f"{part}_key: belongs to {part}_certificate; give both or none")
            if ca is not None and certificate is None:
                raise ValueError(f"{part}_ca: needs {part}_certificate and {part}_key")

    @property
    def one_of_several(self) -> bool:
        """Whether other controllers may be on the same store."""
        return self.store.startswith("etcd:")

    def _check_several(self) -> None:
        """Others must be told of addresses at which this one can be reached."""
        if not self.one_of_several:
            return
        reached = {
            "grpc_target": self.grpc_target or self.grpc_address,
            "peers_address": self.peers_address,
            **({} if self.openflow_targets else {"openflow_targets": self.openflow_address}),
        }
        for setting, address in reached.items():
            if not address:
                raise ValueError(f"{setting}: must be given for a controller on etcd")
            host, _ = split_address(address)
            if host in ("0.0.0.0", "::"):
                raise ValueError(f"{setting}: {address} is no address at which others reach this controller")
        try:
            wire.endpoint(self.peers_address)
        except ValueError as problem:
            # Whoever had to look up a name would find this controller silent meanwhile.
            raise ValueError(
                f"peers_address: {problem}: write the address at which the other controllers reach this one, such as "
                "172.30.0.101:6655"
            ) from None

    def alike(self) -> dict[str, str]:
        """By name, what all controllers on one store must have, as one writes it."""
        return {name: as_written(getattr(self, name)) for name in ALIKE}

    def openflow_target(self) -> str:
        """Where switches reach this controller, as Open vSwitch writes it."""
        if self.openflow_targets:
            return self.openflow_targets[0]
        host, port = split_address(self.openflow_address)
        scheme = "ssl" if self.openflow_certificate else "tcp"
        return f"{scheme}:[{host}]:{port}" if ":" in host else f"{scheme}:{host}:{port}"

    def _check_store_access(self) -> None:
        try:
            check_access(self.store, self.store_access())
        except AccessError as problem:
            raise ValueError(f"{problem.setting}: {problem}") from None

    def store_access(self) -> StoreAccess:
        """How the store is reached; the files are not looked at."""
        return StoreAccess(
            ca=self.store_ca,
            certificate=self.store_certificate,
            key=self.store_key,
            user=self.store_user,
            password_file=self.store_password_file,
        )

    def _check_services(self) -> None:
        pods = self.cluster_ranges
        _check("service_ranges", lambda: service_ranges(self.service_ranges, pods))
        services = service_ranges(self.service_ranges, pods)
        _check(
            "load_balancer_ranges", lambda: load_balancer_ranges(self.load_balancer_ranges, pods, services)
        )
        _check("node_port_range", lambda: node_ports(self.node_port_range))
        _check("cluster_domain", lambda: check_dns_subdomain("", self.cluster_domain))
        _check("dns_addresses", lambda: dns_addresses(self.dns_addresses, services))
        if self.dns and not dns_addresses(self.dns_addresses, services):
            raise ValueError(
                "dns_addresses: service_ranges have no tenth address; give one, or set dns to false"
            )

    def services(self) -> ServiceNetwork:
        """What the cluster has for Services, as values. ValueError."""
        ranges = service_ranges(self.service_ranges, self.cluster_ranges)
        return ServiceNetwork(
            service_ranges=ranges,
            load_balancer_ranges=load_balancer_ranges(self.load_balancer_ranges, self.cluster_ranges, ranges),
            node_ports=node_ports(self.node_port_range),
            cluster_domain=self.cluster_domain,
            serve_dns=self.dns,
            dns_addresses=dns_addresses(self.dns_addresses, ranges),
        )

    def ranges(self) -> ClusterRanges:
        """The cluster's ranges as values. ValueError."""
        return ClusterRanges(self.cluster_ranges, self.node_prefix_ipv4, self.node_prefix_ipv6)


def _check(setting: str, check: Callable[[], object]) -> None:
    """Run a check; what it raises becomes an error that names the setting."""
    try:
        check()
    except (ValueError, StoreError, InvalidObjectError) as problem:
        raise ValueError(f"{setting}: {problem}") from None
