# SPDX-License-Identifier: Apache-2.0
"""Real traffic between two places of the guest, each named by the words that run a command there.

transfer(guest, ["ip", "netns", "exec", "a"], ["ip", "netns", "exec", "b"], "10.0.0.2", 3_000_000)
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.guest import Guest

PROGRAM = ["/usr/bin/python3", "-IS", str(Path(__file__).with_name("transfer.py"))]


@dataclass(frozen=True)
class Transfer:
    """What was sent and what arrived."""

    peer: str
    """The source address that the receiver saw."""
    received: int
    """Bytes that arrived."""
    intact: bool
    """The digests of what was sent and what arrived are equal."""


def transfer(
    guest: Guest,
    sender: Sequence[str],
    receiver: Sequence[str],
    address: str,
    size: int,
    *,
    transport: str = "tcp",
    port: int = 5001,
) -> Transfer:
    """Send `size` random bytes to `address`; one datagram when the transport is udp.

    Raises CommandFailedError, with what both sides printed, when nothing arrives within two minutes.
    """
    receive = [*receiver, *PROGRAM, "receive", transport, address, str(port)]
    send = [*sender, *PROGRAM, "send", transport, address, str(port), str(size)]
    done = guest.shell(
        "out=$(mktemp)\n"
        f'{shlex.join(receive)} > "$out" & receiver=$!\n'
        'until grep -q ready "$out"; do kill -0 "$receiver"; sleep 0.1; done\n'
        f'{shlex.join(send)}\nwait "$receiver"\ntail -n 1 "$out"',
        timeout=300,
    ).check()
    sent, received = (json.loads(line) for line in done.stdout.splitlines())
    return Transfer(
        received["peer"], received["bytes"], sent == {k: received[k] for k in ("bytes", "sha256")}
    )
