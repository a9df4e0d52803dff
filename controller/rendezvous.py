# SPDX-License-Identifier: Apache-2.0
"""Rendezvous hashing: for each thing every candidate has a score, a hash of both names, and the highest wins. No
message between those who choose, an even spread, and when a candidate goes only what it had moves.
"""

from __future__ import annotations

import hashlib


def score(thing: str, candidate: str) -> bytes:
    """Compare as bytes, and with the candidate's name after it: the same everywhere, in every release."""
    return hashlib.blake2b(f"{thing}/{candidate}".encode(), digest_size=8).digest()
