# SPDX-License-Identifier: Apache-2.0
"""Both ends of a checked TCP transfer, run by the tests inside pods.

    stream.py serve PORT BYTES          receives BYTES while it sends BYTES of its own
    stream.py connect ADDRESS BYTES     ADDRESS is host:port

Each end prints the SHA-1 of what it sent and of what it received. Data is pseudo-random and of
another seed at each end, so that neither a lost, a doubled nor a swapped piece goes unnoticed.
"""

import hashlib
import random
import socket
import sys
import threading

CHUNK = 1 << 20


def chunks(seed, count):
    """`count` bytes: one random megabyte, each time with its number in front."""
    body = random.Random(seed).randbytes(CHUNK - 8)
    for number in range(0, count, CHUNK):
        yield (number.to_bytes(8, "big") + body)[: count - number]


def send(connection, seed, count, digests):
    """Send `count` bytes and say that no more will come."""
    digest = hashlib.sha1()
    for chunk in chunks(seed, count):
        connection.sendall(chunk)
        digest.update(chunk)
    connection.shutdown(socket.SHUT_WR)
    digests["sent"] = digest.hexdigest()


def receive(connection, digests):
    """Read to the end."""
    digest = hashlib.sha1()
    buffer = memoryview(bytearray(CHUNK))
    while size := connection.recv_into(buffer):
        digest.update(buffer[:size])
    digests["received"] = digest.hexdigest()


def exchange(connection, seed, count):
    """Send and receive at once; print both digests."""
    digests = {}
    sender = threading.Thread(target=send, args=(connection, seed, count, digests))
    sender.start()
    receive(connection, digests)
    sender.join()
    print(digests["sent"], digests["received"])


def main():
    """Be the end that the command line names."""
    role, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if role == "serve":
        with socket.create_server(("", int(where))) as server:
            print("listening", flush=True)
            connection, _ = server.accept()
            with connection:
                exchange(connection, "server", count)
    else:
        host, port = where.split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            exchange(connection, "client", count)


if __name__ == "__main__":
    main()
