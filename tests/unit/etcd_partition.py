# SPDX-License-Identifier: Apache-2.0
"""A member of etcd that its clients reach and the other members do not.

``python -m tests.unit.etcd_partition leader|follower`` (which member), inside a network namespace of its own;
ends with 0 when all is as it should be.

All members are on one loopback. They run as different users, by which nftables tells their connections apart.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

from controller.store import Event, Put, StoreError, open_store
from tests.unit.etcd_process import Etcd

USERS = (64001, 64002, 64003)


class Partition:
    """Rules that mark each member's connections to the others, to be dropped on demand."""

    def __init__(self, etcd: Etcd) -> None:
        self._etcd = etcd
        marks = "\n".join(
            f"meta skuid {USERS[number]} tcp dport != {etcd.peer_port(number)} tcp dport "
            f"{{ {', '.join(str(etcd.peer_port(other)) for other in range(3))} }} ct mark set {number + 1}"
            for number in range(3)
        )
        self._nft(
            f"""table ip cut {{
                chain members {{
                    type filter hook output priority -10
                    {marks}
                }}
                chain severed {{
                    type filter hook output priority 0
                }}
            }}"""
        )

    def _nft(self, text: str) -> None:
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

    def cut(self, number: int) -> None:
        port = self._etcd.peer_port(number)
        self._nft(
            f"""add rule ip cut severed ct mark {number + 1} counter drop
                add rule ip cut severed tcp dport {port} counter drop
                add rule ip cut severed tcp sport {port} counter drop"""
        )

    def heal(self) -> None:
        self._nft("flush chain ip cut severed")


def again(call: Callable[[], object]) -> None:
    """Call, over an election."""
    for _ in range(10):
        try:
            call()
        except StoreError:
            continue
        return
    raise AssertionError("the store does not come back")


def watch_moves_on(etcd: Etcd, partition: Partition, number: int) -> None:
    """A watch at a member that is cut off sees what the others write, and misses nothing."""
    there, elsewhere = open_store(etcd.url_from(number)), open_store(etcd.url_from((number + 1) % 3))
    with there.watch("/sdn/", elsewhere.write([Put("/sdn/a", b"0")])) as watch:
        partition.cut(number)
        began = time.monotonic()
        written: list[int] = []
        again(lambda: written.append(elsewhere.write([Put("/sdn/a", b"1")])))
        wrote = time.monotonic()
        event = watch.next(60)
        print(f"written after {wrote - began:.2f} s, seen {time.monotonic() - wrote:.2f} s later")
        assert event == Event("/sdn/a", b"1", written[0]), event
        began = time.monotonic()
        revision = there.write([Put("/sdn/a", b"2", expect=written[0])])
        print(f"written by way of the member that is cut off: {time.monotonic() - began:.2f} s")
        event = watch.next(60)
        assert event == Event("/sdn/a", b"2", revision), event
    there.close()
    elsewhere.close()


def main(case: str) -> int:
    with Etcd(members=3, users=USERS) as etcd:
        partition = Partition(etcd)
        for round_ in range(3):
            leader = etcd.leader()
            watch_moves_on(etcd, partition, leader if case == "leader" else (leader + 1) % 3)
            partition.heal()
            etcd.wait_ready()
            print(f"round {round_} done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
