# SPDX-License-Identifier: Apache-2.0
"""Leads connections to ADDRESS PORT on to a unix socket: relay.py ADDRESS PORT PATH. Prints "listening".

It gives a server that is elsewhere an address in the namespace that it is started in. When it is stopped (SIGSTOP), the
server looks as if it hung: connections are taken, and nothing is said.
"""

from __future__ import annotations

import asyncio
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def main(address: str, port: int, path: str) -> None:
    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_unix_connection(path)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    server = await asyncio.start_server(lead, address, port)
    print("listening", flush=True)
    await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
