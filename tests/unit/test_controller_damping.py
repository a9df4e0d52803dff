# SPDX-License-Identifier: Apache-2.0
"""A controller that comes and goes keeps away longer each time, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.ha.damping import FORGIVEN_SECONDS, Damping


def test_the_time_away_doubles_and_has_an_end() -> None:
    damping = Damping()
    assert damping.away_seconds == 0.0
    away = []
    now = 1000.0
    for _ in range(7):
        damping = damping.marked(now)
        away.append(damping.away_seconds)
        assert damping.back_at == now + damping.away_seconds
        now = damping.back_at + 1.0
    assert away == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert damping.marked(now + FORGIVEN_SECONDS).away_seconds == 1.0


@given(st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=2000))
def test_the_time_away_is_within_its_bounds_and_what_is_kept_too(pauses: list[float]) -> None:
    damping, now, before = Damping(), 0.0, 0.0
    for pause in pauses:
        now += pause
        damping = damping.marked(now)
        assert 1.0 <= damping.away_seconds <= 30.0
        # Twice as long as before at most.
        assert damping.away_seconds <= max(1.0, 2 * before)
        before = damping.away_seconds
        assert damping.marked_at[0] > now - FORGIVEN_SECONDS
