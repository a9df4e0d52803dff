# SPDX-License-Identifier: Apache-2.0
"""Waiting for something to become true, with time-outs that a slow machine may stretch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from sdn.lab.errors import LabError

FACTOR_VARIABLE = "SDN_LAB_TIMEOUT_FACTOR"


def patience(seconds: float) -> float:
    """`seconds`, times SDN_LAB_TIMEOUT_FACTOR: an emulated machine is twenty times slower than a real one."""
    text = os.environ.get(FACTOR_VARIABLE, "1")
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 10_000:
        raise LabError(
            f"{FACTOR_VARIABLE}={text}: must be a number above 0, such as 20 on an emulated machine"
        )
    return seconds * factor


def wait_until(
    holds: Callable[[], bool],
    what: str,
    seconds: float,
    *,
    every: float = 0.05,
    because: Callable[[], str] = lambda: "",
) -> None:
    """Poll until `holds`. After `seconds` (stretched), LabError says what never came and what `because` knows of it."""
    limit = patience(seconds)
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            reason = because()
            raise LabError(f"waited {limit:.0f} s for {what}, in vain{f': {reason}' if reason else ''}")
        time.sleep(every)
