# SPDX-License-Identifier: Apache-2.0
"""Running the programs that a lab is made with: `ip`, `ethtool`, `ovsdb-tool`."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping

from sdn.lab.errors import LabError
from sdn.lab.waiting import patience

#: Where system programs are, whatever the caller's PATH says: root's PATH often lacks the sbin folders.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every process of a lab: nothing of the caller's but the language, so that labs are alike."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return {"PATH": PATH, "HOME": "/root", **kept, **(extra or {})}


def run(command: list[str], *, stdin: str | None = None) -> str:
    """What the program wrote to stdout. LabError with the command and what it complained of, if it failed."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
            env=environment(),
        )
    except FileNotFoundError:
        raise LabError(f"program {command[0]} is missing; run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shlex.join(command)}` did not end within {patience(60):.0f} s") from None
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise LabError(f"`{shlex.join(command)}` failed ({done.returncode}): {complaint}")
    return done.stdout


def ip_batch(lines: Iterable[str], netns: str | None = None) -> None:
    """Several `ip` commands in one process, inside a network namespace if one is named."""
    inside = ["-n", netns] if netns else []
    run(["ip", *inside, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))
