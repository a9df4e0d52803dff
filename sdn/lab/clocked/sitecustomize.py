# SPDX-License-Identifier: Apache-2.0
"""Lets a Python process sleep under libfaketime.

`time.sleep` waits for a moment of the monotonic clock (clock_nanosleep(2), TIMER_ABSTIME). libfaketime 0.9.10, told to
let that clock alone, takes the moment for one of its own clock and fails with EINVAL.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    """As time.sleep."""
    length = float(seconds)
    if length < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], length)


time.sleep = _sleep
