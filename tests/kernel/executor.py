# SPDX-License-Identifier: Apache-2.0
"""Runs inside the guest: takes commands from the host, one at a time, and streams back what they print.

It speaks over the virtio serial port named `control`, one JSON object a line. From the host:

    {"argv": [...], "env": {...}, "cwd": "/", "stdin": "text", "timeout": 60}

and back, in the order of what happens:

    {"ready": "6.1.0-56-amd64"}                      once, when commands can be taken
    {"stream": "stdout" | "stderr", "data": base64}  what the command printed
    {"exit": 0, "timed_out": false}                  the command ended; negative: killed by that signal

The end of the input (the host's side closed) ends the executor, and with it the guest. Standard library only,
and no import of this project: it runs under the guest's plain /usr/bin/python3, which under emulation starts
slowly enough.
"""

import base64
import json
import os
import selectors
import signal
import subprocess
import time
from typing import Any, BinaryIO

PORT_NAME = "control"

LINGER = 0.5
"""Seconds of silence on the pipes after a command has ended, after which they are closed: a daemon that it
left behind may hold them open for ever."""


def open_port(name: str) -> BinaryIO:
    """Open the virtio serial port of this name, unbuffered. (There is no udev here to make links by name.)"""
    ports = "/sys/class/virtio-ports"
    for port in os.listdir(ports):
        with open(f"{ports}/{port}/name") as file:
            if file.read().strip() == name:
                return open(f"/dev/{port}", "r+b", buffering=0)
    raise FileNotFoundError(f"no virtio serial port is named {name}")


def send(port: BinaryIO, message: dict[str, object]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[port.write(data) :]


def run(port: BinaryIO, request: dict[str, Any]) -> None:
    """Run one command to its end or to its time-out, which kills its process group."""
    try:
        process = subprocess.Popen(
            request["argv"],
            env={**os.environ, **request["env"]},
            cwd=request["cwd"],
            stdin=subprocess.PIPE if request["stdin"] else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        send(port, {"stream": "stderr", "data": base64.b64encode(f"{error}\n".encode()).decode()})
        send(port, {"exit": 127, "timed_out": False})
        return
    if process.stdin is not None:
        try:
            process.stdin.write(request["stdin"].encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it ended without reading: its exit code tells the story
    deadline = time.monotonic() + request["timeout"]
    timed_out = stream(port, process, deadline)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:  # it closed its output and went on
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
    send(port, {"exit": process.wait(), "timed_out": timed_out})


def stream(port: BinaryIO, process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Send on what the command prints until it has ended and its pipes are closed or silent.

    True when it was killed because the deadline came first.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    timed_out = False
    with selectors.DefaultSelector() as selector, process.stdout as stdout, process.stderr as stderr:
        for name, pipe in (("stdout", stdout), ("stderr", stderr)):
            selector.register(pipe, selectors.EVENT_READ, name)
        while selector.get_map():
            events = selector.select(LINGER)
            for key, _ in events:
                data = os.read(key.fd, 65536)
                if data:
                    send(port, {"stream": key.data, "data": base64.b64encode(data).decode()})
                else:
                    selector.unregister(key.fileobj)
            if not events and process.poll() is not None:
                break
            if not timed_out and time.monotonic() > deadline and process.poll() is None:
                timed_out = True
                os.killpg(process.pid, signal.SIGKILL)
    return timed_out


def main() -> None:
    port = open_port(PORT_NAME)
    send(port, {"ready": os.uname().release})
    waiting = b""
    while True:
        data = port.read(65536)
        if not data:
            return
        waiting += data
        while b"\n" in waiting:
            line, waiting = waiting.split(b"\n", 1)
            run(port, json.loads(line))


if __name__ == "__main__":
    main()
