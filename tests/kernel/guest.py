# SPDX-License-Identifier: Apache-2.0
"""A Debian kernel running in qemu with this machine's own root: start it, run commands in it, throw it away.

    with Guest(prepare(print), print) as guest:
        print(guest.run(["uname", "-r"]).stdout)

qemu emulates the processor (`-accel tcg`), so it needs neither /dev/kvm nor root's help from the host's
kernel, and everything in the guest takes some 7 to 20 times as long as outside: it proves function, never
speed.

Lives here: qemu's command line, the life of its process, and the host's end of the executor's protocol
(executor.py).
"""

from __future__ import annotations

import base64
import codecs
import json
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.kernel import initramfs
from tests.kernel.image import Kernel, Report, require

BOOT_TIMEOUT = 240.0
"""Seconds until the guest must take commands. It takes 5 to 40: the machine may be busy otherwise."""

GRACE = 60.0
"""Seconds beyond a command's own time-out after which the guest as a whole is given up."""

KERNEL_COMMAND_LINE = " ".join(
    (
        "console=ttyS0 quiet",  # each byte of the serial console is emulated
        "panic=-1 oops=panic",  # with qemu's -no-reboot: a kernel that fails ends qemu at once
        "cryptomgr.notests mitigations=off audit=0 apparmor=0",  # what only costs time here
        "random.trust_cpu=on",  # no wait for entropy
    )
)


class GuestFailedError(Exception):
    """The guest as a whole did not start, or is dead; the text ends with the last lines of its console."""


class CommandFailedError(Exception):
    """A command in the guest ended with another exit code than 0, or ran out of time."""


@dataclass(frozen=True)
class Completed:
    """What a command in the guest did."""

    argv: tuple[str, ...]
    returncode: int
    """As of subprocess: negative when it was ended by that signal."""
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool

    def check(self) -> Completed:
        """Give itself back when the command succeeded, else raise CommandFailedError with all that it
        printed."""
        if self.returncode == 0 and not self.timed_out:
            return self
        how = "ran out of time" if self.timed_out else f"exited with {self.returncode}"
        raise CommandFailedError(
            f"in the guest: {shlex.join(self.argv)} {how} after {self.seconds:.0f} s\n"
            f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"
        )


class Guest:
    """One run of qemu. A context manager: leaving it ends qemu, whatever happened inside."""

    def __init__(
        self, kernel: Kernel, report: Report, *, memory_mib: int = 3072, processors: int = 2
    ) -> None:
        self._kernel = kernel
        self._report = report
        self._memory_mib = memory_mib
        self._processors = processors
        self._console: deque[str] = deque(maxlen=200)
        self._started = time.monotonic()
        self._process: subprocess.Popen[str] | None = None
        self._control: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._unread = b""
        self._files = tempfile.TemporaryDirectory(prefix="sdn-kernel-")

    def __enter__(self) -> Guest:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = 120.0,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = "/",
        stdin: str = "",
        echo: bool = False,
    ) -> Completed:
        """Run a command in the guest, as root, and give back what it did, whatever its exit code (see
        Completed.check).

        `timeout` in seconds is the command's own: it is killed, the guest lives on. With `echo` what the
        command prints is also passed on as it comes. Raises GuestFailedError when the guest is dead or does
        not answer GRACE seconds later.
        """
        request = {
            "argv": list(argv),
            "env": dict(env or {}),
            "cwd": str(cwd),
            "stdin": stdin,
            "timeout": timeout,
        }
        started = time.monotonic()
        self._send(request)
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        texts = {"stdout": "", "stderr": ""}
        while True:
            message = self._receive(started + timeout + GRACE)
            if "exit" in message:
                break
            name = message["stream"]
            text = decoders[name].decode(base64.b64decode(message["data"]))
            texts[name] += text
            if echo:
                print(text, end="", flush=True, file=sys.stderr if name == "stderr" else sys.stdout)
        seconds = time.monotonic() - started
        return Completed(
            tuple(argv), message["exit"], texts["stdout"], texts["stderr"], seconds, message["timed_out"]
        )

    def shell(self, script: str, *, timeout: float = 120.0, echo: bool = False) -> Completed:
        """Run a shell script in the guest that stops at its first error and tells each command on stderr."""
        return self.run(["/bin/sh", "-eux", "-c", script], timeout=timeout, echo=echo)

    def close(self) -> None:
        """End qemu: closing the port lets the guest switch itself off; one that does not is killed."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._files.cleanup()

    @property
    def pid(self) -> int:
        """qemu's process id on the host. Raises GuestFailedError when it is not running."""
        if self._process is None:
            raise self._failed("the guest is not running")
        return self._process.pid

    def console(self) -> str:
        """The last lines of the guest's console: its kernel's messages and those of its set-up."""
        return "\n".join(self._console)

    def _start(self) -> None:
        require(
            {"qemu-system-x86_64": "qemu-system-x86", "setpriv": "util-linux", "busybox": "busybox-static"}
        )
        first_files = Path(self._files.name) / "initramfs"
        first_files.write_bytes(initramfs.build(self._kernel))
        self._report(f"booting Linux {self._kernel.release} in qemu, emulated: 5 to 40 s")
        self._control, theirs = socket.socketpair()
        with theirs:
            self._started = time.monotonic()
            # If this process dies without a word, the kernel ends qemu with it.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command_line(first_files, theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=[theirs.fileno()],
            )
        self._reader = threading.Thread(target=self._read_console, args=(self._process,), daemon=True)
        self._reader.start()
        ready = self._receive(time.monotonic() + BOOT_TIMEOUT)
        self._report(f"Linux {ready['ready']} takes commands after {time.monotonic() - self._started:.0f} s")

    def _command_line(self, first_files: Path, control: int) -> list[str]:
        # multidevs: the host's root spans several file systems, whose inode numbers must not be taken for one
        # another.
        share = "local,security_model=none,readonly=on,multidevs=remap"
        modules = str(self._kernel.modules).replace(
            ",", ",,"
        )  # a comma in a path is doubled in qemu's options
        # fmt: off
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max,la57=off",
            "-smp", str(self._processors), "-m", str(self._memory_mib),
            "-kernel", str(self._kernel.vmlinux), "-initrd", str(first_files), "-append", KERNEL_COMMAND_LINE,
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-chardev", f"socket,id=control,fd={control}",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control",
            "-fsdev", f"{share},id=host,path=/", "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-fsdev", f"{share},id=modules,path={modules}",
            "-device", "virtio-9p-pci,fsdev=modules,mount_tag=modules",
        ]
        # fmt: on

    def _read_console(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                text = line.rstrip()
                self._console.append(text)
                if text.startswith(initramfs.SAY):
                    elapsed = time.monotonic() - self._started
                    self._report(f"{elapsed:5.1f} s  {text.removeprefix(initramfs.SAY)}")

    def _send(self, request: Mapping[str, object]) -> None:
        if self._control is None:
            raise self._failed("the guest is not running")
        try:
            self._control.settimeout(GRACE)
            self._control.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise self._failed(f"the guest takes no command: {error}") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The executor's next message; after the deadline, or when qemu has ended, the guest is dead."""
        if self._control is None:
            raise self._failed("the guest is not running")
        while b"\n" not in self._unread:
            self._control.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                data = self._control.recv(65536)
            except TimeoutError:
                raise self._failed("the guest does not answer in time") from None
            except OSError as error:
                raise self._failed(f"the guest is gone: {error}") from error
            if not data:
                raise self._failed("the guest ended")
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _failed(self, what: str) -> GuestFailedError:
        if self._reader is not None:
            self._reader.join(5)  # of a guest that has died the last words may still be under way
        return GuestFailedError(f"{what}\n--- the end of its console\n{self.console()}")
