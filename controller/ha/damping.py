# SPDX-License-Identifier: Apache-2.0
"""How long a controller keeps away that others did not hear, before it takes away the mark that one of them has set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_AWAY_SECONDS: Final = 1.0
LONGEST_AWAY_SECONDS: Final = 30.0
#: A mark so long ago is forgiven.
FORGIVEN_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Damping:
    """How long a controller keeps away that was found silent: longer each time, so that one that comes and goes moves
    little. Times are of a clock that nobody sets.
    """

    marked_at: tuple[float, ...] = ()

    def marked(self, now: float) -> Damping:
        """It was marked once more."""
        recent = [at for at in self.marked_at if at > now - FORGIVEN_SECONDS]
        return Damping((*recent, now))

    @property
    def away_seconds(self) -> float:
        """For how long it keeps away after the last time; 0: it was never marked."""
        if not self.marked_at:
            return 0.0
        doubled = min(len(self.marked_at) - 1, 10)
        return min(FIRST_AWAY_SECONDS * 2.0**doubled, LONGEST_AWAY_SECONDS)

    @property
    def back_at(self) -> float:
        """When it may take its mark away."""
        return self.marked_at[-1] + self.away_seconds if self.marked_at else 0.0
