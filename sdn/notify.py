# SPDX-License-Identifier: Apache-2.0
"""Tells the service manager how a daemon fares: the sd_notify protocol, without libsystemd.

A datagram of `NAME=value` lines goes to the unix socket that the environment names in `NOTIFY_SOCKET` (a
leading `@` means the abstract namespace). Without that variable nobody asked, and every function here does
nothing and returns False; so daemons call them unconditionally. Source: sd_notify(3), sd_watchdog_enabled(3).

    notify.ready("serving 3 switches")   # the daemon does its work from here on; once, after start-up
    notify.status("1 of 3 switches connected")
    notify.stopping()                    # the end has begun
    notify.reloading()                   # SIGHUP was taken; followed by ready() when it is done
"""

import os
import socket
import time


def send(*assignments: str) -> bool:
    """Send lines such as `READY=1` in one datagram; True if a service manager was told.

    A manager that is gone or refuses is not this daemon's failure: OSError counts as "not told".
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.send("\n".join(assignments).encode())
    except OSError:
        return False
    return True


def _line(text: str) -> str:
    return " ".join(text.split())


def ready(status: str = "") -> bool:
    """Start-up, or a reload, is complete. `status` is one line for `systemctl status`."""
    return send("READY=1", *([f"STATUS={_line(status)}"] if status else []))


def status(text: str) -> bool:
    """Replace the line that `systemctl status` shows."""
    return send(f"STATUS={_line(text)}")


def stopping(status: str = "") -> bool:
    """The daemon has begun to end."""
    return send("STOPPING=1", *([f"STATUS={_line(status)}"] if status else []))


def reloading() -> bool:
    """Settings are being read again; `ready()` must follow."""
    return send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
