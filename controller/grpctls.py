# SPDX-License-Identifier: Apache-2.0
"""gRPC with TLS: what a controller shows to those who call it, and to other controllers that it calls.

It is one pair of certificate and key for both, since controllers are each other's clients: they ask one another for
what only a switch's owner knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import grpc

from controller.settings import ControllerSettings


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """The contents of the files, PEM."""

    certificate: bytes
    key: bytes
    #: Of those who sign clients' certificates, which are demanded then; None: they are not.
    ca: bytes | None

    @classmethod
    def read(cls, config: ControllerSettings) -> Self | None:
        """As the settings say; None: gRPC is without TLS. OSError."""
        if config.grpc_certificate is None or config.grpc_key is None:
            return None
        return cls(
            certificate=config.grpc_certificate.read_bytes(),
            key=config.grpc_key.read_bytes(),
            ca=config.grpc_ca.read_bytes() if config.grpc_ca is not None else None,
        )

    def server(self) -> grpc.ServerCredentials:
        """For the address that is served."""
        pair = (self.key, self.certificate)
        return grpc.ssl_server_credentials(
            [pair], root_certificates=self.ca, require_client_auth=self.ca is not None
        )

    def channel(self) -> grpc.ChannelCredentials:
        """For calls to other controllers, whose certificates name the host that they tell of, and are signed as
        clients' are; without ``ca`` by an authority that everybody knows.
        """
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)
