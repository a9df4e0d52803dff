# SPDX-License-Identifier: Apache-2.0
"""The DNS server's process: `python -m agent.dns CONFIG`. What the agent tells comes on its standard input, and what it
tells the agent goes to its standard output.

When that input ends, the agent has: then it goes on for a while with the names that it knows, unless somebody ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import signal
import sys
from typing import Any, Final

import dns.rdata
import msgspec

from agent.dns import feed
from agent.dns.config import READY, DnsConfig
from agent.dns.forwarder import Forwarder
from agent.dns.observer import Observer
from agent.dns.resolver import Resolver
from agent.dns.server import Server
from agent.dns.upstreams import Upstreams
from sdn import logs
from sdn.services.dns import Zone

log: Final = logs.get("agent.dns")

#: What a pipe's reader keeps of a Service that did not come whole yet.
_PIPE_BYTES: Final = 1 << 20
#: After this long we serve names of others, though not told of all Services.
_PATIENCE_SECONDS: Final = 2.0
_NOBODY: Final = 65534
_LARGEST_BUFFER: Final = 1 << 20
#: What an agent that is slow to read leaves in memory; more is not reported.
_MOST_UNREAD: Final = 1 << 20


async def serve(config: DnsConfig) -> None:
    """Until standard input ends and for `linger_seconds` after that, or until SIGTERM."""
    zone = Zone(
        config.domain,
        [ipaddress.ip_network(text) for text in config.ranges],
        [ipaddress.ip_address(text) for text in config.nameservers],
    )
    upstreams = Upstreams(config.upstreams, (*config.listen, *config.nameservers))
    said = await _standard_output()
    observer = Observer(lambda resolution: _say(said, feed.line(resolution)))
    server = Server(Resolver(zone, Forwarder(upstreams.servers), observer))
    complete = asyncio.Event()
    starting = asyncio.create_task(_start(server, config, complete, said))
    starting.add_done_callback(_raise_its_problem)
    asked_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end.set)
    ends = [
        asyncio.create_task(asked_to_end.wait()),
        asyncio.create_task(_live(zone, observer, complete, config)),
    ]
    for task in ends:
        task.add_done_callback(_raise_its_problem)
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    await server.end()


async def _live(zone: Zone, observer: Observer, complete: asyncio.Event, config: DnsConfig) -> None:
    await _follow(zone, observer, complete)
    # Nobody is there to be told.
    observer.watch(())
    if complete.is_set() and config.linger_seconds:
        log.info("the agent is away; names stay as they are", seconds=config.linger_seconds)
        await asyncio.sleep(config.linger_seconds)


async def _start(
    server: Server, config: DnsConfig, complete: asyncio.Event, said: asyncio.WriteTransport
) -> None:
    # The process of an agent before may still serve, and knows more than one that was told nothing yet.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(complete.wait(), _PATIENCE_SECONDS)
    await asyncio.gather(*(server.listen(address, config.port) for address in config.listen))
    _give_up_privileges()
    await complete.wait()
    _say(said, READY)


async def _standard_output() -> asyncio.WriteTransport:
    loop = asyncio.get_running_loop()
    transport, _protocol = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
    return transport


def _say(said: asyncio.WriteTransport, line: bytes) -> bool:
    """Tell the agent; False: it is gone, or does not listen."""
    if said.is_closing() or said.get_write_buffer_size() > _MOST_UNREAD:
        return False
    said.write(line)
    return not said.is_closing()


def _raise_its_problem(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        raise problem


async def _follow(zone: Zone, observer: Observer, complete: asyncio.Event) -> None:
    """Take in what the agent tells."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_PIPE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    async for update in feed.read(reader):
        if isinstance(update, feed.Settled):
            observer.settled(update.number, update.in_force)
            continue
        if isinstance(update, feed.Watched):
            observer.watch(update.patterns)
            continue
        kind = update.WhichOneof("update")
        if kind == "service":
            try:
                zone.update(update.service)
            except ValueError as problem:
                named = f"Service/{update.service.namespace}/{update.service.name}"
                log.warning("a Service has no names", object=named, error=str(problem))
        elif kind == "removed":
            zone.remove(update.removed.namespace, update.removed.name)
        elif not zone.complete:
            zone.complete = True
            complete.set()
            log.info("all Services have names", serial=zone.serial)


def _give_up_privileges() -> None:
    """What parses packets of anybody needs no rights, once its sockets are there."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    except OSError as problem:
        # A service manager may have taken the right to do so; then it has taken most others, too.
        log.debug("stays root", error=str(problem))


def _ended_by_exception(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A part that has failed must not leave the rest half alive: the agent starts a new process."""
    log.error(
        "DNS failed",
        error=logs.error_text(problem) if isinstance(problem := context.get("exception"), Exception) else "",
        what=context.get("message"),
    )
    os._exit(1)


def _keep_buffers() -> None:
    """Each datagram is received into 256 KB. The C library maps so much anew each time, and gives it back, which takes
    a third as long as all the rest of an answer; once it has seen a larger piece freed, it keeps them (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    bytes(_LARGEST_BUFFER)


async def _main(config: DnsConfig) -> None:
    asyncio.get_running_loop().set_exception_handler(_ended_by_exception)
    await serve(config)


def main(argv: list[str]) -> int:
    """Exit code 0 when the agent has ended."""
    config = msgspec.json.decode(argv[1], type=DnsConfig)
    logs.setup(config.log_level)
    # Types are loaded when first met, perhaps from files that only root may read.
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]
    _keep_buffers()
    asyncio.run(_main(config))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
