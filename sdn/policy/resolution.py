# SPDX-License-Identifier: Apache-2.0
"""What the DNS says, as far as policies want to know: of which names, and for how long.

The DNS server of each node looks at answers by this, and the controller keeps their addresses by it. It imports next
to nothing, since that server's process does.

An address counts for as long as the answer may be used, its TTL, after it was *last seen* in one, and for MIN_SECONDS
at least. Not every answer is reported. So a report counts for half as long again, and a name whose answers stay as they
are is reported once in half that time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

#: Seconds that an address counts at least: programs go on to use one for a while without asking again.
MIN_SECONDS: Final = 60.0
#: And at most: no cache keeps an answer longer (RFC 8767, section 4).
MAX_SECONDS: Final = 7 * 86_400.0
#: Addresses of one name, and names, that are remembered.
MOST_ADDRESSES: Final = 1_000
MOST_NAMES: Final = 10_000

_LABEL: Final = r"[a-z0-9_-]{1,63}"
_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
#: Octets of a name in text form, without the final dot (RFC 1035, section 2.3.4).
_MOST_OCTETS: Final = 253


def plain(name: str) -> str:
    """A name, or a pattern, as they are compared: in lower case and without a dot at the end."""
    return name.lower().removesuffix(".")


def is_name(name: str) -> bool:
    """Whether it is, in plain form, a name that hosts have. Others, with escapes in their text, are nobody's peers."""
    return len(name) <= _MOST_OCTETS and _NAME.fullmatch(name) is not None


def seconds_of(ttl: int) -> float:
    """How long an address counts after an answer with this TTL."""
    return min(max(float(ttl), MIN_SECONDS), MAX_SECONDS)


def reported_seconds_of(ttl: int) -> float:
    """How long it counts after a report: until then it may be seen again without being reported."""
    return seconds_of(ttl) * 1.5


class Patterns:
    """The ``domainNames`` of policies: what :func:`sdn.policy.matching.domain_matches` says of each, at once of all."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = frozenset(map(plain, patterns))

    def __len__(self) -> int:
        return len(self._patterns)

    def match(self, name: str) -> str:
        """The pattern that takes a name in plain form, of several the most special one; empty: none does."""
        patterns = self._patterns
        if name in patterns:
            return name
        dot = name.find(".")
        while dot >= 0:
            wildcard = f"*{name[dot:]}"
            if wildcard in patterns:
                return wildcard
            dot = name.find(".", dot + 1)
        return ""
