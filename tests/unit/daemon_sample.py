# SPDX-License-Identifier: Apache-2.0
"""A daemon as small as can be, for test_daemon.py to start and to signal."""

import asyncio
import threading
from pathlib import Path
from typing import Annotated, Literal

from sdn import daemon, logs
from sdn.settings import Meta, Settings


class SampleSettings(Settings, frozen=True, kw_only=True):
    state_dir: Annotated[Path, Meta(description="State folder.")]
    way: Annotated[
        Literal["wait", "async", "raise", "raise-in-thread", "block", "return"],
        Meta(description="What it does."),
    ] = "wait"
    label: Annotated[str, Meta(description="Something that a reload cannot apply.")] = ""


async def wait_in_loop(stop: daemon.Stop) -> None:
    await stop.wait_async()


def fail() -> None:
    raise RuntimeError("as asked\nfor")


def serve(config: SampleSettings, stop: daemon.Stop) -> None:
    with daemon.hold(daemon.private_folder(config.state_dir)):
        (config.state_dir / "file").write_text("x")
        stop.ready("sample")
        logs.get("agent.sample").debug("debugging")
        stop.on_stop(lambda: logs.get("agent.sample").info("told"))
        match config.way:
            case "wait":
                while not stop.wait(0.05):
                    logs.get("agent.sample").debug("tick")
            case "async":
                asyncio.run(wait_in_loop(stop))
            case "raise":
                fail()
            case "raise-in-thread":
                threading.Thread(target=fail, name="worker").start()
                stop.wait()
            case "block":
                threading.Lock().acquire()
                threading.Event().wait()
            case "return":
                return


if __name__ == "__main__":
    raise SystemExit(daemon.run("sdn-sample", SampleSettings, serve))
