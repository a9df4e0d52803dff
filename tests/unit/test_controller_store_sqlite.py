# SPDX-License-Identifier: Apache-2.0
"""The embedded store: its file, and what happens to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from controller.store import Put, StoreError, open_store

ROOT = Path(__file__).parents[2]

_WRITER = """
import sys
from controller.store import Put, open_store
store = open_store(sys.argv[1])
number = 0
while True:
    number += 1
    store.write([Put(f"/k/{number:08}", b"v" * 200), Put("/last", str(number).encode())])
    print(number, flush=True)
"""


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/folder/store.db"
    store = open_store(url)
    revision = store.write([Put("/a", b"1")])
    store.close()
    store = open_store(url)
    entry = store.get("/a")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"1", revision)
    assert store.write([Put("/b", b"2")]) > revision
    store.close()


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/folder/store.db")
    store.write([Put("/a", b"1")])
    folder = tmp_path / "folder"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    store.close()


def test_what_a_killed_writer_was_told_is_written(tmp_path: Path) -> None:
    for attempt in range(3):
        url = f"sqlite://{tmp_path}/{attempt}.db"
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = 0
        for line in writer.stdout:
            told = int(line)
            if told == 300:
                os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = open_store(url)
        last = store.get("/last")
        assert last is not None
        assert int(last.value) >= told
        # A write is whole or not at all: the key and the count that went with it.
        assert store.get(f"/k/{int(last.value):08}") is not None
        assert store.get(f"/k/{int(last.value) + 1:08}") is None
        store.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database, " * 1000)
    with pytest.raises(StoreError, match=r"store\.db: damaged or no store"):
        open_store(f"sqlite://{path}")


def test_a_store_with_a_damaged_page_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(f"sqlite://{path}")
    for number in range(200):
        store.write([Put(f"/k/{number}", os.urandom(500))])
    store.close()
    data = bytearray(path.read_bytes())
    data[4096 * 2 : -4096] = os.urandom(len(data) - 4096 * 3)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        open_store(f"sqlite://{path}")


def test_a_store_in_use_is_named(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    store = open_store(url)
    with pytest.raises(StoreError, match="locked by another process"):
        open_store(url)
    store.close()
    open_store(url).close()


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="check that the folder exists"):
        open_store(f"sqlite://{tmp_path}/file/store.db")


def test_a_store_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="format 99"):
        open_store(f"sqlite://{path}")


@pytest.mark.parametrize("url", ["", "store.db", "sqlite://host/path", "sqlite://", "mysql://x/y"])
def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="store"):
        open_store(url)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/store.db")
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get("/a")
    store.close()
