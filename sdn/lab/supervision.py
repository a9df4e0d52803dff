# SPDX-License-Identifier: Apache-2.0
"""The processes of a lab, under one supervisord of its own, which starts them again when they die.

A process is called as an operator would say it: `node-1/ovs-vswitchd`, `node-1/agent`, `controller-1`. Each runs in
its machine's namespace through `ip netns exec`, which executes in place, so that the pid is the daemon's own.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from sdn.lab.command import environment
from sdn.lab.errors import LabError
from sdn.lab.processes import Identity, identify
from sdn.lab.state import Folder
from sdn.lab.waiting import patience, wait_until

#: Stands in every process's environment, with the lab's id as value.
MARK = "SDN_LAB_ID"
#: Stands in a socket's path for the pid of the process that serves it.
PID = "<pid>"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One process to run and keep running."""

    name: str
    netns: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    #: Those with lower numbers are started first and ended last.
    priority: int
    #: How long it may take to end after SIGTERM, in seconds.
    stop_seconds: int = 10
    #: What it serves, by meaning ("db", "control", "grpc", ...): paths of unix sockets (PID stands for its pid), or
    #: address:port.
    sockets: Mapping[str, str] = {}


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it is now."""

    name: str
    namespace: str
    #: supervisord's words: RUNNING, STARTING, STOPPED, BACKOFF (it keeps dying), EXITED, FATAL.
    state: str
    #: None when it does not run.
    pid: int | None
    #: Seconds since it was started; 0 when it does not run.
    uptime: int
    sockets: Mapping[str, str]
    log: str


def log_path(folder: Folder, program: str) -> Path:
    return folder.logs / f"{program.replace('/', '-')}.log"


def configuration(folder: Folder, lab_id: str, programs: Sequence[Program]) -> str:
    """supervisord's configuration file."""
    sections = [
        f"""[supervisord]
nodaemon=true
identifier=sdn-lab-{folder.name}
directory={folder.path}
logfile={folder.logs}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=1
pidfile={folder.path}/supervisord.pid
childlogdir={folder.logs}
minfds=1024
umask=077

[unix_http_server]
file={_socket(folder)}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
    ]
    groups: dict[str, list[str]] = {}
    for program in programs:
        machine, _, process = program.name.rpartition("/")
        section = program.name.replace("/", ".")
        if machine:
            groups.setdefault(machine, []).append(section)
        variables = environment({**program.environment, MARK: lab_id})
        pairs = ",".join(f'{name}="{value}"' for name, value in variables.items())
        command = " ".join(("ip", "netns", "exec", program.netns, *program.command))
        # A process that ends within startsecs counts as "keeps dying" and is started again after a growing pause.
        sections.append(
            f"""[program:{section}]
process_name={process or program.name}
command={_escaped(command)}
environment={_escaped(pairs)}
priority={program.priority}
autostart=true
autorestart=true
startsecs=1
startretries=1000000
stopwaitsecs={int(patience(program.stop_seconds))}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={log_path(folder, program.name)}
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=1
"""
        )
    for machine, members in groups.items():
        sections.append(f"[group:{machine}]\nprograms={','.join(members)}\n")
    return "\n".join(sections)


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _socket(folder: Folder) -> Path:
    return folder / "supervisord.sock"


class Supervisor:
    """A running supervisord, asked over its private socket."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def start(self, lab_id: str) -> Identity:
        """Start supervisord, and with it all processes; returns when it answers."""
        with (self._folder.logs / "supervisord.out").open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "supervisor.supervisord"),
                    *("--configuration", str(self._folder / "supervisord.conf")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment({MARK: lab_id}),
                start_new_session=True,
            )

        def answers() -> bool:
            if process.poll() is not None:
                complaint = (self._folder.logs / "supervisord.out").read_text(
                    encoding="utf-8", errors="replace"
                )
                raise LabError(f"supervisord ended at once: {' '.join(complaint.split())[-500:]}")
            return self.answers()

        wait_until(answers, "supervisord to answer", 30)
        # Known to the system now; this process need not wait for it at its end.
        process.returncode = 0
        identity = identify(process.pid)
        if identity is None:
            raise LabError(f"supervisord ended; see {self._folder.logs}/supervisord.log")
        return identity

    def answers(self) -> bool:
        try:
            self._call("getState")
        except LabError:
            return False
        return True

    def pid(self) -> int:
        """supervisord's own."""
        return cast(int, self._call("getPID"))

    def processes(self) -> dict[str, dict[str, Any]]:
        """supervisord's description of each process, by our name of it."""
        found = {}
        for info in cast(list[dict[str, Any]], self._call("getAllProcessInfo")):
            name = info["name"] if info["group"] == info["name"] else f"{info['group']}/{info['name']}"
            found[name] = info
        return found

    def stop(self, name: str) -> None:
        """End a process and keep it ended. No error when it does not run."""
        self._call("stopProcess", _full(name), True, unless=_NOT_RUNNING)

    def give_up(self, name: str) -> None:
        """From now on the process is to be ended: it is asked to, not waited for, and not started again when it ends.

        No error when it does not run.
        """
        self._call("stopProcess", _full(name), False, unless=_NOT_RUNNING)

    def start_process(self, name: str) -> None:
        """Start a process that was stopped. No error when it runs."""
        self._call("startProcess", _full(name), True, unless=_ALREADY_STARTED)

    def begin_process(self, name: str) -> None:
        """As `start_process`, but not waiting whether it stays; if it does not, it is started again."""
        self._call("startProcess", _full(name), False, unless=_ALREADY_STARTED)

    def shutdown(self) -> None:
        """End all processes, then supervisord."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: object, unless: int = 0) -> object:
        from supervisor.xmlrpc import SupervisorTransport

        if not _socket(self._folder).exists():
            raise LabError(f"lab {self._folder.name} is not running: it has no supervisord")
        transport = SupervisorTransport(None, None, f"unix://{_socket(self._folder)}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == unless:
                return None
            if fault.faultCode == _BAD_NAME:
                raise LabError(f"no such process; it has {', '.join(self.processes())}") from None
            raise LabError(f"supervisord refused {method}: {fault.faultString}") from None
        except (OSError, http.client.HTTPException) as problem:
            raise LabError(
                f"supervisord of lab {self._folder.name} does not answer ({problem}); "
                f"`sdnctl lab down --name {self._folder.name}` removes what is left of the lab"
            ) from None
        finally:
            transport.close()


# supervisor/xmlrpc.py, class Faults
_BAD_NAME = 10
_ALREADY_STARTED = 60
_NOT_RUNNING = 70


def _full(name: str) -> str:
    """Our name of a process as supervisord wants it, group:process."""
    return name.replace("/", ":") if "/" in name else f"{name}:{name}"


def state_of(program: Program, info: Mapping[str, Any], folder: Folder) -> ProcessState:
    """What `status` tells of one process."""
    running = info.get("statename") in ("RUNNING", "STARTING", "STOPPING") and info.get("pid")
    return ProcessState(
        name=program.name,
        namespace=program.netns,
        state=str(info.get("statename", "UNKNOWN")),
        pid=int(info["pid"]) if running else None,
        uptime=max(0, int(time.time()) - int(info["start"])) if running else 0,
        sockets={
            what: where.replace(PID, str(info.get("pid"))) if running else where
            for what, where in program.sockets.items()
        },
        log=str(log_path(folder, program.name)),
    )
