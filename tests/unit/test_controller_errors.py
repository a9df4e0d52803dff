# SPDX-License-Identifier: Apache-2.0
"""What a gRPC client is told of an error: its text, and a code that says what to do about it."""

from __future__ import annotations

import inspect

import grpc
import pytest

from controller import errors
from controller.services.errors import TOLD, code_of

RAISED = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", RAISED)
def test_every_error_that_several_parts_raise_is_told(kind: type[Exception]) -> None:
    assert isinstance(kind("why"), TOLD)
    assert code_of(kind("why")) is not grpc.StatusCode.UNKNOWN


def test_who_does_not_answer_may_be_asked_again() -> None:
    assert code_of(errors.UnavailableError("Controller b does not answer")) is grpc.StatusCode.UNAVAILABLE
