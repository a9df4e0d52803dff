# SPDX-License-Identifier: Apache-2.0
"""Errors as the CNI specification writes them (1.1.0, section 5, "Error"): a code, a message, details."""

from __future__ import annotations

import enum
import json
from typing import Final

LATEST: Final = "1.1.0"


class Code(enum.IntEnum):
    """Codes 1 to 99 are the specification's, those from 100 on are ours."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    NOT_AVAILABLE_AND_LIMITED = 51
    RANGE_EXHAUSTED = 100
    REFUSED = 101
    CHECK_FAILED = 102
    INTERNAL = 999


class CniError(Exception):
    """A request fails; `message` names the field or object, `details` may say more."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def encode(self, version: str) -> bytes:
        """The error object as printed on standard output."""
        document: dict[str, object] = {"cniVersion": version, "code": int(self.code), "msg": self.message}
        if self.details:
            document["details"] = self.details
        return json.dumps(document).encode()
