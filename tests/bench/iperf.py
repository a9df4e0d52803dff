# SPDX-License-Identifier: Apache-2.0
"""One iperf3 transfer between two network namespaces."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.bench import netns

PORT: Final = 5201
START_SECONDS: Final = 30.0
_LISTEN: Final = "0A"
"""TCP state LISTEN, as /proc/net/tcp6 writes it."""


def megabits(client: str, server: str, address: str, seconds: int) -> float:
    """Rate in Mbit/s at which one TCP connection delivers from one namespace to the other in so many seconds.

    Raises RuntimeError with iperf3's own words when there is no connection.
    """
    with netns.entered(server):
        listener = subprocess.Popen(
            ["iperf3", "--server", "--one-off", "--port", str(PORT)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    try:
        _await_listening(listener)
        with netns.entered(client):
            done = subprocess.run(
                [
                    *("iperf3", "--client", address, "--port", str(PORT), "--time", str(seconds)),
                    *("--json", "--connect-timeout", "5000"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        answer = json.loads(done.stdout)
        if done.returncode != 0 or "error" in answer:
            raise RuntimeError(
                f"iperf3 from {client} to {address} in {server}: {answer.get('error', done.stderr)}"
            )
        return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e6
    finally:
        listener.terminate()
        listener.communicate()


def _await_listening(listener: subprocess.Popen[bytes]) -> None:
    """The server is up when its namespace, seen through its own process, has the port in state LISTEN."""
    deadline = time.monotonic() + START_SECONDS
    table = Path(f"/proc/{listener.pid}/net/tcp6")
    wanted = f":{PORT:04X}"
    while time.monotonic() < deadline and listener.poll() is None:
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == _LISTEN:
                return
        time.sleep(0.01)
    listener.kill()
    raise RuntimeError(f"iperf3 does not listen: {listener.communicate()[1].decode(errors='replace')}")
