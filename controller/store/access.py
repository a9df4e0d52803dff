# SPDX-License-Identifier: Apache-2.0
"""How a store outside the process is reached: certificates for the connections, a user and its password.

The files are checked when the store is opened, so that a wrong one is told then, with the setting that names
it; gRPC would say only that it cannot connect, and why in its own log.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from controller.store.contract import StoreError


class AccessError(StoreError):
    """A ``setting`` that says how to reach the store is wrong; the text says why, without the setting."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(problem)
        self.setting = setting


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """PEM files, and who to log in as. The names are those of the settings, less "store_"."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str = ""
    password_file: Path | None = None

    @property
    def tls(self) -> bool:
        return self.ca is not None or self.certificate is not None

    def first_setting(self) -> str:
        """The name of a setting that was given; empty: none was."""
        for name in ("ca", "certificate", "key", "user", "password_file"):
            if getattr(self, name):
                return f"store_{name}"
        return ""

    def check_complete(self) -> None:
        """AccessError for what cannot be without something else."""
        if (self.certificate is None) != (self.key is None):
            raise AccessError("store_key", "belongs to store_certificate; give both or none")
        if (self.password_file is None) != (not self.user):
            raise AccessError("store_password_file", "belongs to store_user; give both or none")

    def check_files(self) -> None:
        """AccessError when a file cannot be used."""
        self.check_complete()
        if self.ca is not None:
            _check("store_ca", self.ca, _load_certificates)
        if self.certificate is not None and self.key is not None:
            certificate = self.certificate
            _check("store_certificate", certificate, _load_certificates)
            # An empty password: otherwise an encrypted key would ask for one on the terminal.
            _check(
                "store_key",
                self.key,
                lambda key: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, ""),
            )
        if self.password_file is not None:
            self.password()

    def password(self) -> str:
        """The password, as its file has it now. AccessError."""
        if self.password_file is None:
            return ""
        try:
            text = self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as problem:
            raise AccessError("store_password_file", f"{self.password_file}: {_why(problem)}") from None
        if not text:
            raise AccessError("store_password_file", f"{self.password_file}: is empty")
        return text


def _load_certificates(path: Path) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)


def _check(setting: str, path: Path, load: Callable[[Path], None]) -> None:
    try:
        path.read_bytes()
        load(path)
    except OSError as problem:  # ssl.SSLError is one.
        raise AccessError(setting, f"{path}: {_why(problem)}") from None


def _why(problem: Exception) -> str:
    if isinstance(problem, ssl.SSLError):
        return f"no usable PEM file: {problem.reason or problem}"
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
