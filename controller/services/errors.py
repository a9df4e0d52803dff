# SPDX-License-Identifier: Apache-2.0
"""Which status code each error of the engine is to a gRPC client. The text always goes along."""

from __future__ import annotations

from grpc import StatusCode

from controller.cluster import TakenError
from controller.errors import BusyError, NotFoundError, PreconditionError, UnavailableError
from controller.ranges import ExhaustedError, RangeError
from controller.store import ConflictError, StoreError
from controller.watchers import TooSlowError
from sdn.model import InvalidObjectError

#: The first class that fits counts.
_CODES: tuple[tuple[type[Exception], StatusCode], ...] = (
    (InvalidObjectError, StatusCode.INVALID_ARGUMENT),
    (RangeError, StatusCode.INVALID_ARGUMENT),
    (TakenError, StatusCode.ALREADY_EXISTS),
    (ExhaustedError, StatusCode.RESOURCE_EXHAUSTED),
    (TooSlowError, StatusCode.RESOURCE_EXHAUSTED),
    (BusyError, StatusCode.RESOURCE_EXHAUSTED),
    (NotFoundError, StatusCode.NOT_FOUND),
    (PreconditionError, StatusCode.FAILED_PRECONDITION),
    (ConflictError, StatusCode.ABORTED),
    (UnavailableError, StatusCode.UNAVAILABLE),
    (StoreError, StatusCode.UNAVAILABLE),
)

#: Errors that a client is told; any other is a defect, logged with its traceback.
TOLD: tuple[type[Exception], ...] = tuple(kind for kind, _ in _CODES)


def code_of(error: Exception) -> StatusCode:
    """The status code of one of the :data:`TOLD` errors."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
