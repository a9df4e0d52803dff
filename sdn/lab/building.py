# SPDX-License-Identifier: Apache-2.0
"""`lab up` and `lab down`: from nothing to a cluster that is ready for pods, and back to nothing.

lab.json is there before anything else and goes last. Down does not trust what up wrote after that: it looks for the
lab's namespaces by name and for its processes by the mark in their environment and by the namespace they are in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sdn.lab import mounts, namespaces, preflight, processes, readiness, trees, underlay
from sdn.lab.command import run
from sdn.lab.errors import LabError
from sdn.lab.processes import Identity
from sdn.lab.programs import database_file, node_folder, programs
from sdn.lab.spec import LabSpec
from sdn.lab.state import Folder, LabRecord
from sdn.lab.supervision import MARK, Supervisor, configuration
from sdn.lab.waiting import wait_until

#: Called with one line for each step that takes time.
Progress = Callable[[str], None]


def silent(_line: str) -> None:
    """No progress is shown."""


def up(spec: LabSpec, progress: Progress = silent, *, keep: bool = False) -> None:
    """Bring the lab up; when it fails, take down what was made (unless `keep`) and raise LabError."""
    folder = Folder(spec.name)
    preflight.check_root()
    if folder.exists():
        raise LabError(_already(folder))
    preflight.check(spec)
    me = processes.identify(os.getpid())
    assert me is not None  # this very process is alive
    record = LabRecord(
        spec=spec,
        id=secrets.token_hex(8),
        starter=me,
        complete=False,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )
    try:
        folder.create(record)
    except FileExistsError:
        raise LabError(_already(folder)) from None
    try:
        with _at_work(folder):
            _make(record, folder, progress)
    except BaseException as problem:
        if not keep:
            if isinstance(problem, LabError):
                progress("failed; taking down what was made (--keep leaves it)")
            down(spec.name)
        raise
    folder.write(msgspec.structs.replace(record, complete=True))


@contextlib.contextmanager
def _at_work(folder: Folder) -> Iterator[None]:
    """Hold a lock that goes with this process and with those that it forked and that did not execute yet.

    Between fork and exec a child carries no mark, so `down` after an `up` that was killed there would not find it. It
    shares the lock's open file until exec closes it (flock(2)), so whoever gets the lock has no such child to fear.
    """
    with _lock_file(folder).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nobody_at_work(folder: Folder) -> None:
    """Wait until neither `up` nor a child that it just forked is left."""
    with contextlib.suppress(FileNotFoundError), _lock_file(folder).open("rb") as lock:

        def free() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        wait_until(free, f"the cut-off start of lab {folder.name} to end", 30)


def _lock_file(folder: Folder) -> Path:
    return folder / "up.lock"


def _make(record: LabRecord, folder: Folder, progress: Progress) -> None:
    spec = record.spec
    begun = time.monotonic()

    def step(text: str) -> None:
        progress(f"{time.monotonic() - begun:5.1f} s  {text}")

    step(f"underlay: {len(spec.namespaces)} network namespaces, one bridge")
    underlay.build(spec)
    step(f"databases of {spec.nodes} switches")
    for node in spec.node_machines:
        node_folder(folder, node.name).mkdir(mode=0o700)
        _make_database(folder, node.name)
    for machine in (*spec.controller_machines, *spec.store_machines):
        (folder / machine.name).mkdir(mode=0o700)
    for process, tree in spec.trees.items():
        trees.set_tree(folder, process, tree)
    all_programs = programs(spec, folder)
    (folder / "supervisord.conf").write_text(configuration(folder, record.id, all_programs), encoding="utf-8")
    step(f"supervisord with {len(all_programs)} processes")
    supervisor = Supervisor(folder)
    supervisor.start(record.id)
    readiness.wait(spec, folder, supervisor, step)
    step("up")


def _make_database(folder: Folder, node: str) -> None:
    """An empty Open vSwitch database with its one root row, as `ovs-vsctl init` would leave it."""
    file = str(database_file(folder, node))
    run(["ovsdb-tool", "create", file, str(preflight.SCHEMA)])
    # A lab's nodes share few cores, so one thread for each of vswitchd's jobs, not one a core.
    root = {
        "op": "insert",
        "table": "Open_vSwitch",
        "row": {
            "other_config": ["map", [["n-handler-threads", "1"], ["n-revalidator-threads", "1"]]],
            "external_ids": ["map", [["system-id", f"{folder.name}-{node}"], ["hostname", node]]],
        },
    }
    run(["ovsdb-tool", "transact", file, msgspec.json.encode(["Open_vSwitch", root]).decode()])


def _already(folder: Folder) -> str:
    record = folder.read()
    name = folder.name
    if record.complete and Supervisor(folder).answers():
        return (
            f"lab {name} is up already; `sdnctl lab status --name {name}` shows it, "
            f"`sdnctl lab down --name {name}` ends it"
        )
    if not record.complete and processes.alive(record.starter):
        return f"lab {name} is being brought up just now, by process {record.starter.pid}"
    return f"lab {name} was left unfinished or has died; `sdnctl lab down --name {name}` removes what is left"


def down(name: str, progress: Progress = silent) -> bool:
    """Remove everything of the lab; False if there was nothing. Safe to repeat, and after `up` was cut off anywhere.

    LabError if `up` is at work on it, or something would not go.
    """
    preflight.check_root()
    folder = Folder(name)
    if not folder.exists():
        folder.remove()  # drafts of an `up` that was killed before the folder got its name
        return False
    record = folder.read()
    starter = record.starter
    if not record.complete and starter.pid != os.getpid() and processes.alive(starter):
        raise LabError(
            f"lab {name} is being brought up by process {starter.pid}; wait for that, or end it first"
        )

    def all_namespaces() -> list[str]:
        return [*(pod.netns for pod in folder.pods()), *record.spec.namespaces]

    progress("ending processes")
    _nobody_at_work(folder)
    protected = processes.myself_and_ancestors()

    def of_this_lab() -> list[Identity]:
        found = {process.pid: process for process in processes.with_mark(f"{MARK}={record.id}")}
        for pid in namespaces.inhabitants(all_namespaces()):
            identity = processes.identify(pid)
            if identity is not None:
                found[pid] = identity
        return [process for pid, process in found.items() if pid not in protected]

    for process in of_this_lab():
        if processes.frozen(process):
            # It would take no SIGTERM.
            processes.send(process, signal.SIGCONT)
    last = _store_and_supervisor(record, folder)
    if (folder / "supervisord.sock").exists():
        # Orderly first; whether it worked is seen below.
        with contextlib.suppress(LabError):
            Supervisor(folder).shutdown()
    left = processes.end(of_this_lab, grace=15, last=last)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise LabError(f"lab {name}: processes {pids} do not end; nothing else was removed")
    remaining = all_namespaces()
    progress(f"removing {len(remaining)} network namespaces")
    for netns in remaining:
        namespaces.delete(netns)
    mounts.remove_below(folder.path)
    folder.remove()
    return True


def _store_and_supervisor(record: LabRecord, folder: Folder) -> list[Identity]:
    """Processes of the store, and supervisord, which waits for them; none where that is not known.

    An etcd that leads does not end for seconds, since it looks for another member to lead, and its data goes anyway.
    """
    names = [machine.name for machine in record.spec.store_machines]
    if not names or not (folder / "supervisord.sock").exists():
        return []
    with contextlib.suppress(LabError):
        supervisor = Supervisor(folder)
        infos = supervisor.processes()
        pids = [supervisor.pid(), *(int(infos[name]["pid"]) for name in names)]
        return [found for pid in pids if pid and (found := processes.identify(pid)) is not None]
    return []
