# SPDX-License-Identifier: Apache-2.0
"""Opens connections by TCP Fast Open to a server of talk.py, which greets at once.

    fast_open.py ADDRESS PORT COUNT     prints "open" when COUNT connections have had their
                                        greetings and echoes; keeps them until a line comes

Standard library only.
"""

from __future__ import annotations

import signal
import socket
import sys

LINE = b"hello there\n"
ROUNDS = 3
PATIENCE = 60
"""Seconds until a caller that waits in vain is killed."""


def call(address, port, count):
    """The first connection has no cookie of the server's yet, so it is an ordinary one."""
    signal.alarm(PATIENCE)
    kept = []
    for _ in range(count):
        made = socket.socket()
        made.sendto(LINE, socket.MSG_FASTOPEN, (address, port))
        heard = made.makefile("rb")
        heard.readline()
        for _ in range(ROUNDS):
            if heard.readline() != LINE:
                raise SystemExit("not what was sent")
            made.sendall(LINE)
        kept.append((made, heard))
    print("open", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    call(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
