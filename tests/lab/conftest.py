# SPDX-License-Identifier: Apache-2.0
"""What tests of a whole cluster share; a module that needs a lab of another kind has a fixture of its own."""

from collections.abc import Iterator

import pytest

from sdn.lab.lab import Lab
from tests.lab.labs import running


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three nodes, as `sdnctl lab up` makes them; shared by the tests of one module."""
    short = (
        request.module.__name__.rpartition(".")[2].removeprefix("test_").replace("_", "-")[:12].rstrip("-")
    )
    with running(short) as found:
        yield found
