# SPDX-License-Identifier: Apache-2.0
"""One guest for all tests of a run: each boot costs seconds, and programs that have run once start faster.

And one lab of the usual kind in it, which each file leaves as it found it: bringing one up takes a minute there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.cluster import NAME, Cluster
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


PODS = (("web-1", "node-1"), ("web-2", "node-1"), ("db-1", "node-2"))


@pytest.fixture(scope="session")
def cluster(guest: Guest, report: Report) -> Iterator[Cluster]:
    """Two nodes with Geneve, and PODS."""
    guest.shell("modprobe sctp").check()
    cluster = Cluster(guest)
    report(f"bringing up lab {NAME} in the guest, and {len(PODS)} pods: some minutes")
    seconds = cluster.up("geneve", PODS)
    report(f"lab {NAME} was up after {seconds:.0f} s")
    yield cluster
    cluster.down()
