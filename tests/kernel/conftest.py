# SPDX-License-Identifier: Apache-2.0
"""One guest for all tests of a run: each boot costs seconds, and programs that have run once start faster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.guest import Guest
from tests.kernel.image import Kernel, KernelUnavailableError, Report, prepare


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Progress goes to the terminal as it comes, past pytest's capture: the first run downloads 70 MB."""
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(line)

    return write


@pytest.fixture(scope="session")
def kernel(report: Report) -> Kernel:
    try:
        return prepare(report)
    except KernelUnavailableError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def guest(kernel: Kernel, report: Report) -> Iterator[Guest]:
    with Guest(kernel, report) as guest:
        yield guest
