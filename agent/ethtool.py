# SPDX-License-Identifier: Apache-2.0
"""Offloads that the userspace datapath cannot live with, switched off as `ethtool -K` does (ioctl SIOCETHTOOL).

All functions act in the network namespace that the calling thread is in.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
# linux/ethtool.h
_ETHTOOL_STXCSUM: Final = 0x17
_ETHTOOL_SGRO: Final = 0x2C


def transmit_checksums_off(ifname: str) -> None:
    """`tx off`: the sender computes checksums itself, and segments what it sends."""
    _set(ifname, _ETHTOOL_STXCSUM)


def receive_merging_off(ifname: str) -> None:
    """`gro off`: frames are seen as they were on the wire, never merged into larger ones."""
    try:
        _set(ifname, _ETHTOOL_SGRO)
    except OSError as problem:
        # A device that cannot merge does not need to be told.
        if problem.errno != errno.EOPNOTSUPP:
            raise


def _set(ifname: str, command: int) -> None:
    value = bytearray(struct.pack("=II", command, 0))
    # struct ifreq holds the command's address in memory.
    address = ctypes.addressof((ctypes.c_char * len(value)).from_buffer(value))
    request = struct.pack("=16sQ16x", ifname.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, request)
