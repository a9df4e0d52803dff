# SPDX-License-Identifier: Apache-2.0
"""Addresses of sockets as people write them: "host:port", "[v6 host]:port"."""

from __future__ import annotations

from typing import Any


def split_address(text: str) -> tuple[str, int]:
    """ "host:port" or "[v6 host]:port" as a pair. ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    # Of an IPv6 address without brackets nobody knows where it ends.
    wrong = not host or bool({"[", "]"} & {*host}) or (":" in host and not bracketed)
    if wrong or not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no address and port such as 0.0.0.0:6653 or [::]:6653")
    return host, int(port)


def format_address(address: Any) -> str:
    """A socket's peer as "host:port"."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
