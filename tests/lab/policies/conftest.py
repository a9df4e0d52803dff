# SPDX-License-Identifier: Apache-2.0
"""One lab for all tests of policies: what one test declares is gone when the next one begins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.policies.cluster import PolicyLab, running


@pytest.fixture(scope="package")
def shared() -> Iterator[PolicyLab]:
    with running() as found:
        yield found


@pytest.fixture
def cluster(shared: PolicyLab) -> Iterator[PolicyLab]:
    """The lab without any policy, its pods and namespaces as they were made."""
    yield shared
    shared.restore()
