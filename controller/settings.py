# SPDX-License-Identifier: Apache-2.0
"""What a controller can be told; see sdn/settings.py for the sources that a setting is taken from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from controller.addresses import split_address
from controller.ranges import ClusterRanges
from controller.store import StoreError
from controller.store.open import check_store_url
from sdn.model import InvalidObjectError
from sdn.model.names import check_dns_subdomain
from sdn.settings import Meta, Settings


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
        _check("name", lambda: check_dns_subdomain("", self.name))
        _check("store", lambda: check_store_url(self.store))
        _check("cluster_ranges", self.ranges)
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

    def ranges(self) -> ClusterRanges:
        """The cluster's ranges as values. ValueError."""
        return ClusterRanges(self.cluster_ranges, self.node_prefix_ipv4, self.node_prefix_ipv6)


def _check(setting: str, check: Callable[[], object]) -> None:
    """Run a check; what it raises becomes an error that names the setting."""
    try:
        check()
    except (ValueError, StoreError, InvalidObjectError) as problem:
        raise ValueError(f"{setting}: {problem}") from None
