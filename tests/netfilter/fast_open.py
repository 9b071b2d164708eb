# SPDX-License-Identifier: Apache-2.0
"""Connections by TCP Fast Open: data travels in the SYN, and the server's before its client's ACK.

    fast_open.py serve PORT                   echoes; of the first line each byte by itself, at once
    fast_open.py call ADDRESS PORT COUNT      prints "open" when COUNT connections have had their
                                              echoes, and keeps them until a line comes

Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

QUEUE = 1024
LINE = b"hello there\n"
ROUNDS = 3
PATIENCE = 60
"""Seconds until a caller that waits in vain is killed."""


async def answer(reader, writer):
    """Echo until the end."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in await reader.readline():
        writer.write(bytes([byte]))
        await writer.drain()
    with contextlib.suppress(ConnectionError):  # the callers are killed
        while line := await reader.readline():
            writer.write(line)
    writer.close()


async def serve(port):
    """Until killed."""
    listener = socket.create_server(("", port), backlog=QUEUE)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, QUEUE)
    await asyncio.start_server(answer, sock=listener)
    print("listening", flush=True)
    await asyncio.Event().wait()


def call(address, port, count):
    """The first connection has no cookie of the server's yet, so it is an ordinary one."""
    signal.alarm(PATIENCE)
    kept = []
    for _ in range(count):
        made = socket.socket()
        made.sendto(LINE, socket.MSG_FASTOPEN, (address, port))
        heard = made.makefile("rb")
        for _ in range(ROUNDS):
            if heard.readline() != LINE:
                raise SystemExit("not what was sent")
            made.sendall(LINE)
        kept.append((made, heard))
    print("open", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        call(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
