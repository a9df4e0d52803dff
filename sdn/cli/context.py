# SPDX-License-Identifier: Apache-2.0
"""The global options of one run of sdnctl, and which server they lead to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sdn.cli.errors import UnreachableError, UsageError

CONTROLLER_SOCKET = Path("/run/sdn/controller.sock")
LAB_VARIABLE = "SDN_LAB_NAME"
SERVER_VARIABLE = "SDN_SERVER"


@dataclass
class Options:
    """Set by the program's callback before any command runs."""

    server: str | None = None
    lab: str | None = None
    debug: bool = False


#: Of this run; a program has one command line.
options = Options()


def server() -> str:
    """The gRPC target to ask. UnreachableError with what to do when there is none to guess."""
    if options.server:
        return target(options.server)
    if options.lab:
        return _of_lab(options.lab)
    if os.environ.get(SERVER_VARIABLE):
        return target(os.environ[SERVER_VARIABLE])
    if os.environ.get(LAB_VARIABLE):
        return _of_lab(os.environ[LAB_VARIABLE])
    if CONTROLLER_SOCKET.exists():
        return f"unix:{CONTROLLER_SOCKET}"
    from sdn.lab.state import names

    running = names()
    if len(running) == 1:
        return _of_lab(running[0])
    if running:
        raise UsageError(f"which lab? there are {', '.join(running)}; say --lab NAME or set {LAB_VARIABLE}")
    raise UnreachableError(
        f"no controller to ask: there is no {CONTROLLER_SOCKET} and no lab; "
        f"say --server ADDRESS or set {SERVER_VARIABLE}, or make a lab with `sdnctl lab up`"
    )


def target(text: str) -> str:
    """A server as people write it (HOST:PORT, unix:/PATH or just /PATH) as gRPC wants it."""
    if text.startswith("/"):
        return f"unix:{text}"
    if text.startswith("unix:") or text.rpartition(":")[2].isdecimal():
        return text
    raise UsageError(f"server {text!r} is not HOST:PORT, unix:/PATH or /PATH")


def lab_name(given: str | None) -> str:
    """The lab that a command means: --name, --lab, SDN_LAB_NAME, the only one there is, or "sdn"."""
    chosen = given or options.lab or os.environ.get(LAB_VARIABLE)
    if chosen:
        return chosen
    from sdn.lab.state import names

    present = names()
    return present[0] if len(present) == 1 else "sdn"


def _of_lab(name: str) -> str:
    from sdn.lab.errors import LabError
    from sdn.lab.lab import Lab

    try:
        return Lab(name).server
    except LabError as problem:
        raise UnreachableError(str(problem)) from None
