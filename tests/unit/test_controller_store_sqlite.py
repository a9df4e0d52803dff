# SPDX-License-Identifier: Apache-2.0
"""The embedded store: its file, and what happens to it."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
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


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = open_store(f"sqlite://{path}")
    for number in range(200):
        store.write([Put(f"/k/{number}", os.urandom(500))])
    store.close()
    whole = path.read_bytes()
    for length in (0, 10, 50, 4096, 5000, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"store\.db: damaged or no store.* Move it away"):
            open_store(f"sqlite://{path}")
    path.write_bytes(whole)
    store = open_store(f"sqlite://{path}")
    assert len(store.list_prefix("/k/").entries) == 200
    store.close()


def kill_a_writer(url: str) -> None:
    """Leave a store as kill -9 does, with what was written last in its -wal file."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for line in writer.stdout:
        if int(line) == 20:
            writer.kill()
    writer.wait()
    writer.stdout.close()


def test_a_file_that_was_emptied_is_not_taken_for_a_new_store_whatever_is_beside_it(tmp_path: Path) -> None:
    path, log = tmp_path / "store.db", tmp_path / "store.db-wal"
    kill_a_writer(f"sqlite://{path}")
    whole, beside = path.read_bytes(), log.read_bytes()
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"it is empty, so it was cut off\. Move it away, with store\.db-wal"
        ):
            open_store(f"sqlite://{path}")
    assert log.read_bytes() == beside
    path.write_bytes(whole)
    store = open_store(f"sqlite://{path}")
    assert len(store.list_prefix("/k/").entries) >= 20
    store.close()


def test_a_file_that_is_missing_beside_its_last_changes_is_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    kill_a_writer(f"sqlite://{path}")
    path.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"is missing, while store\.db-wal, .* put it back, or move"):
        open_store(f"sqlite://{path}")
    assert not path.exists()
    (tmp_path / "store.db-wal").unlink()
    store = open_store(f"sqlite://{path}")
    assert store.list_prefix("/").entries == ()
    store.close()


def test_a_database_without_a_controllers_tables_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for version in (0, 1):
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(
                f"PRAGMA user_version={version}; CREATE TABLE IF NOT EXISTS other (key TEXT);"
            )
        with pytest.raises(StoreError, match="damaged or no store: a controller's tables are not in it"):
            open_store(f"sqlite://{path}")


def test_a_link_to_a_disk_that_is_not_there_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.symlink_to(tmp_path / "disk" / "store.db")
    with pytest.raises(StoreError, match="No such file"):
        open_store(f"sqlite://{path}")
    assert path.is_symlink()
    (tmp_path / "disk").mkdir()
    with pytest.raises(StoreError, match="No such file"):
        open_store(f"sqlite://{path}")


_MAKER = """
import os, sqlite3, sys
from controller.store import open_store
left = int(sys.argv[2])

def count(*_):
    # Ends as kill -9 does, at one of the steps in which a store comes about.
    global left
    left -= 1
    if left == 0:
        os._exit(9)

for owner, name in ((sqlite3, "connect"), (os, "open"), (os, "fsync"), (os, "rename")):
    def make(real):
        def called(*arguments, **named):
            count()
            return real(*arguments, **named)
        return called
    setattr(owner, name, make(getattr(owner, name)))
open_store(sys.argv[1]).close()
"""


def test_a_store_whose_making_was_broken_off_is_made_by_the_next_start(tmp_path: Path) -> None:
    """Whichever step was the last: what is in its place is whole, or nothing is."""
    url = f"sqlite://{tmp_path}/store.db"
    for step in range(1, 20):
        done = subprocess.run([sys.executable, "-c", _MAKER, url, str(step)], cwd=ROOT, check=False)
        path = tmp_path / "store.db"
        assert not path.exists() or path.stat().st_size
        open_store(url).close()
        assert [file.name for file in tmp_path.iterdir()] == ["store.db"]
        path.unlink()
        if done.returncode == 0:
            break
        assert done.returncode == 9
    else:
        raise AssertionError("it never came to its end")
    assert step > 4


def test_pages_that_break_while_the_store_is_open_are_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    keys = [f"/k/{number:05}" for number in range(10_000)]
    store = open_store(f"sqlite://{path}")
    for start in range(0, len(keys), 100):
        store.write([Put(key, os.urandom(500)) for key in keys[start : start + 100]])
    store.close()
    store = open_store(f"sqlite://{path}")
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(os.urandom(path.stat().st_size - 4096 * 3))

    def do_all(do: Callable[[str], object]) -> None:
        for key in keys:
            do(key)

    with pytest.raises(StoreError, match="damaged"):
        do_all(store.get)
    with pytest.raises(StoreError, match="damaged"):
        do_all(lambda key: store.write([Put(key, b"1")]))
    store.close()


_FILLER = """
import sys, time
from pathlib import Path
from controller.store import LeaseGoneError, Put, StoreError, open_store
folder = Path(sys.argv[1])
store = open_store(f"sqlite://{folder}/store.db")
lease = store.grant(3600)
short = store.grant(1)
store.write([Put("/leased", b"1", lease=lease)])
store.write([Put("/short", b"1", lease=short)])
watch = store.watch("/", store.write([Put("/last", b"0")]))
written = {}
(folder / "filler").write_bytes(b"x" * 300_000)
number = refused = 0
while refused < 20:
    number += 1
    key = f"/k/{number:04}"
    try:
        written[key] = store.write([Put(key, b"v" * 3000), Put("/last", str(number).encode())])
        last = number
    except StoreError as problem:
        text = str(problem)
        assert "check that the disk is not full" in text, text
        assert "damaged" not in text, text
        refused += 1

def check(store):
    entries = {entry.key: entry.revision for entry in store.list_prefix("/k/").entries}
    assert entries == written, entries
    assert store.get("/last").value == str(last).encode()

check(store)
try:
    store.revoke(lease)
except StoreError as problem:
    assert "disk" in str(problem)
time.sleep(1.5)
try:
    store.renew(lease)
    raise SystemExit("a lease that was revoked is renewed")
except LeaseGoneError:
    pass
(folder / "filler").unlink()
# The keys of leases that ended meanwhile go now, without being asked to.
deadline = time.monotonic() + 60
while store.list_prefix("/leased").entries or store.list_prefix("/short").entries:
    assert time.monotonic() < deadline
    time.sleep(0.1)
number = last = 9999
written["/k/9999"] = store.write([Put("/k/9999", b"v"), Put("/last", b"9999")])
check(store)
seen = {}
while (event := watch.next(0)) is not None:
    if event.value is not None and event.key.startswith("/k/"):
        seen[event.key] = event.revision
assert seen == written
store.close()
store = open_store(f"sqlite://{folder}/store.db")
check(store)
store.close()
print("refused", refused, "written", len(written))
"""


@pytest.mark.root
def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs "$1"; exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", str(tmp_path), sys.executable, _FILLER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


_HOLDER = """
import sys
from controller.store import Put, open_store
store = open_store(sys.argv[1])
lease = store.grant(3600)
store.write([Put("/m/leased", b"1", lease=lease), Put("/m/kept", b"1"), Put("/m/was", b"1", lease=lease)])
store.write([Put("/m/was", b"2")])
print("written", flush=True)
sys.stdin.read()
"""


def test_no_lease_outlives_the_process(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/store.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, url],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "written\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()
    store = open_store(url)
    assert [entry.key for entry in store.list_prefix("/m/").entries] == ["/m/kept", "/m/was"]
    store.close()


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
