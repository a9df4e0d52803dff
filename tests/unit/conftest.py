# SPDX-License-Identifier: Apache-2.0
"""What tests of the command line share: a server that answers what the test has put there, and sdnctl that asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdn.cli import main
from tests.unit.cli_server import Cluster, Sdnctl, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def cluster(server: tuple[Cluster, str]) -> Cluster:
    return server[0]


@pytest.fixture
def sdnctl(server: tuple[Cluster, str], capsys: pytest.CaptureFixture[str]) -> Sdnctl:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main.run(["--server", server[1], *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call
