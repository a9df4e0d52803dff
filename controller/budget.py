# SPDX-License-Identifier: Apache-2.0
"""How often switches are looked at without a reason: all together for no more than a share of one CPU."""

from __future__ import annotations

import random
import threading
from typing import Final


class Budget:
    """Shared by all that look. Any thread may use it."""

    def __init__(self, share: float) -> None:
        """``share``: of one CPU."""
        self._share = share
        self._lock = threading.Lock()
        self._costs: dict[object, float] = {}
        self._total = 0.0

    def pause(self, who: object, cost: float, at_least: float) -> float:
        """Seconds until ``who`` may look again, at least as long as that, after a look that took ``cost`` seconds of a
        CPU. Spread a little, so that those who begin together do not go on so.
        """
        with self._lock:
            self._total += cost - self._costs.get(who, 0.0)
            self._costs[who] = cost
            wanted = max(at_least, self._total / self._share)
        return wanted * random.uniform(0.9, 1.1)

    def leave(self, who: object) -> None:
        """``who`` looks no more."""
        with self._lock:
            self._total -= self._costs.pop(who, 0.0)


#: Of audits of switches.
AUDITS: Final = Budget(0.05)
