# SPDX-License-Identifier: Apache-2.0
"""The one error of the codec."""

from __future__ import annotations


class CodecError(ValueError):
    """Bytes that are not what the protocol says, or a value that the protocol cannot carry.

    ``offset`` is where in the decoded bytes the trouble is, or -1 when a value could not be encoded.
    """

    def __init__(self, what: str, offset: int = -1) -> None:
        self.what = what
        self.offset = offset
        super().__init__(what if offset < 0 else f"{what} (at byte {offset})")
