# SPDX-License-Identifier: Apache-2.0
"""Rules for all tests: what a folder's tests need, in which order folders run, how property tests draw.

A test gets the marker of its folder (`switch`, `lab`, ...), and what needs root fails without it, with the
reason: a run that silently left out the switch would prove nothing.
"""

import os
from pathlib import Path

import hypothesis
import pytest

ORDER = ("unit", "property", "switch", "node", "lab", "clients", "docs", "kernel", "bench")
"""Folders of tests, cheap and basic ones first, so that a run fails early and at the root of a fault."""

NEEDS_ROOT = frozenset(("switch", "node", "lab", "clients", "kernel", "bench"))

HERE = Path(__file__).parent

# A loaded machine is no reason to fail (no deadline), and a failure must be repeatable (its blob is printed).
hypothesis.settings.register_profile("sdn", deadline=None, print_blob=True)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("sdn"), max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("SDN_HYPOTHESIS_PROFILE", "sdn"))


def _folder(path: Path) -> str:
    parts = path.relative_to(HERE).parts
    return parts[0] if len(parts) > 1 else ""


def _rank(item: pytest.Item) -> int:
    folder = _folder(item.path)
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder, and put the folders in order (tests of a folder keep theirs)."""
    for item in items:
        folder = _folder(item.path)
        if folder in NEEDS_ROOT:
            item.add_marker(folder)
            item.add_marker("root")
    items.sort(key=_rank)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail, rather than skip, a test that needs root when we are not."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("needs root (network namespaces, a switch of its own): run it with sudo", pytrace=False)
