# SPDX-License-Identifier: Apache-2.0
"""Short connections: connect, one request of 100 bytes, its response, close; one after the other.

A program of its own, for it runs in the namespaces of two pods: `serve PORT`, and `call ADDRESS
PORT SECONDS`, which prints how many a second there were. Both run on one CPU, as in the bench: on
two, what is measured is for how long one waits until the other has woken. Imports nothing of
vxlane.
"""

from __future__ import annotations

import os
import socket
import sys
import time

_BYTES = 100
_MESSAGE = bytes(_BYTES)


def serve(port: int) -> None:
    """Answer until killed."""
    with socket.create_server(("", port), backlog=1024) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                if client.recv(_BYTES, socket.MSG_WAITALL):
                    client.sendall(_MESSAGE)
                    # The client closes first, so that TIME_WAIT is its own.
                    client.recv(1)


def call(address: str, port: int, seconds: float) -> float:
    """Connections a second. ConnectionError: one was refused, reset or not answered."""
    began = time.monotonic()
    until, done = began + seconds, 0
    while time.monotonic() < until:
        with socket.socket() as server:
            server.connect((address, port))
            server.sendall(_MESSAGE)
            if not server.recv(_BYTES, socket.MSG_WAITALL):
                raise ConnectionError(f"{address}:{port} closed without a response")
        done += 1
    return done / (time.monotonic() - began)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(call(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
