# SPDX-License-Identifier: Apache-2.0
"""What the pods of these tests run: servers that say who they are and whom they see, and callers.

    talk.py serve NAME PORT         TCP and UDP echo; NAME and the caller's address come first
    talk.py hear PORT [PEER PORT]   UDP: prints "N SECONDS" for each datagram N, answers nothing;
                                    sends one to the peer before it listens
    talk.py reply PORT              the same, and sends each back
    talk.py call CALLS              many at once, as JSON (see dialogue.Call); prints their reports
    talk.py swallow PORT            takes in all that one connection sends; prints how it ended
    talk.py pour PEER PORT BYTES    sends so much and ends by a RST
    talk.py beat PROTOCOL PEER PORT SOURCE-PORT
                                    a number every 20 ms; prints "N SECONDS" for each echo

Seconds are those of CLOCK_MONOTONIC, which all pods share. Standard library only.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import socket
import struct
import sys
import time

BEAT = 0.02
LINE = 1 << 20
RESET = b"reset, please\n"
LINGER = struct.pack("ii", 1, 0)  # close() sends a RST


def say(line):
    """Print at once."""
    print(line, flush=True)


def reset(writer):
    """End a connection by a RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    writer.transport.abort()


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with who answers, whom it sees, and the datagram."""

    def __init__(self, name):
        self.name = name

    def connection_made(self, transport):
        """Keep the way to answer by."""
        self.transport = transport

    def datagram_received(self, data, address):
        """Answer."""
        greeting = json.dumps([self.name, *address]).encode()
        self.transport.sendto(greeting + b"\n" + data, address)


async def serve(name, port):
    """Echo until killed."""

    async def answer(reader, writer):
        writer.write(json.dumps([name, *writer.get_extra_info("peername")]).encode() + b"\n")
        try:
            while line := await reader.readline():
                if line == RESET:
                    return reset(writer)
                writer.write(line)
            writer.close()
        except ConnectionError:
            pass

    await asyncio.start_server(answer, "0.0.0.0", port, backlog=4096, limit=LINE)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Echo(name), ("0.0.0.0", port))
    say("listening")
    await asyncio.Event().wait()


def hear(port, *peer, answers=False):
    """Print what arrives until killed, and send it back if it `answers`."""
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind(("0.0.0.0", port))
    if peer:
        ear.sendto(b"0", (peer[0], int(peer[1])))
    say("listening")
    while True:
        number, sender = ear.recvfrom(100)
        say(f"{number.decode().strip()} {time.monotonic()}")
        if answers:
            ear.sendto(number, sender)


async def connect(call, port):
    """A TCP connection from `port`; 0: any."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", port))
    made.setblocking(False)  # noqa: FBT003 (socket's own signature)
    await asyncio.get_running_loop().sock_connect(made, (call["address"], call["to_port"]))
    return await asyncio.open_connection(sock=made, limit=LINE)


async def converse(call, port):
    """One TCP connection from SYN to its end; who answered, whom it saw, our port, longest wait."""
    reader, writer = await connect(call, port)
    port = writer.get_extra_info("sockname")[1]
    greeting, longest = json.loads(await reader.readline()), 0.0
    for number in range(call["rounds"]):
        line = os.urandom(call["size"] // 2).hex().encode() + b"\n"
        sent = time.monotonic()
        writer.write(line)
        if await reader.readline() != line:
            raise ValueError(f"not what was sent, round {number}")
        longest = max(longest, time.monotonic() - sent)
        await asyncio.sleep(call["idle"] if number == call["rounds"] // 2 else call["pause"])
    if call["end"] == "client resets":
        reset(writer)
    elif call["end"] == "server resets":
        writer.write(RESET)
        try:
            await reader.read()
        except ConnectionResetError:
            return *greeting, port, longest
        raise ValueError("no RST")
    else:
        writer.write_eof()
        if await reader.read():
            raise ValueError("more than was sent")
        writer.close()
    return *greeting, port, longest


class Answers(asyncio.DatagramProtocol):
    """Collects answers."""

    def __init__(self):
        self.queue = asyncio.Queue()

    def datagram_received(self, data, address):
        """Keep it."""
        self.queue.put_nowait((data, address))


async def question(call, port):
    """UDP in turns, reported as by `converse`; who was not asked can't answer."""
    loop = asyncio.get_running_loop()
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if port:
        # Not for any port: two sockets may be given the same one then, and an ICMP error for the
        # first keeps the second from sending.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("0.0.0.0", port))
    made.connect((call["address"], call["to_port"]))
    transport, answers = await loop.create_datagram_endpoint(Answers, sock=made)
    port, longest, greetings = transport.get_extra_info("sockname")[1], 0.0, set()
    for _ in range(call["rounds"]):
        block, sent = os.urandom(call["size"]), time.monotonic()
        transport.sendto(block)
        data, _ = await answers.queue.get()
        greeting, _, echo = data.partition(b"\n")
        if echo != block:
            raise ValueError("not what was sent")
        greetings.add(greeting)
        longest = max(longest, time.monotonic() - sent)
        await asyncio.sleep(call["pause"])
    transport.close()
    if len(greetings) > 1:
        raise ValueError(f"answered by several, or seen as several: {greetings}")
    return *json.loads(greeting), port, longest


async def run(call):
    """All conversations of a call; what became of them."""
    talk = {"tcp": converse, "udp": question}[call["protocol"]]
    turns = asyncio.Semaphore(call["at_once"])
    report = {"errors": collections.Counter(), "talks": []}

    async def one(number):
        port = call["port"] and call["port"] + number
        async with turns:
            try:
                report["talks"].append(await asyncio.wait_for(talk(call, port), call["timeout"]))
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                report["errors"][repr(error)] += 1

    await asyncio.gather(*(one(number) for number in range(call["count"])))
    return report | {"ended": time.monotonic()}


async def run_all(calls):
    """All calls at once."""
    print(json.dumps(await asyncio.gather(*(run(call) for call in calls))))


def swallow(port):
    """Read until the end, or the RST."""
    ear = socket.create_server(("0.0.0.0", port))
    say("listening")
    line, _ = ear.accept()
    buffer = bytearray(LINE)
    try:
        while line.recv_into(buffer):
            pass
        say("end")
    except ConnectionResetError:
        say("reset")


def pour(address, port, size):
    """Send `size` bytes and reset."""
    line = socket.create_connection((address, port))
    block = bytes(LINE)
    for _ in range(size // LINE):
        line.sendall(block)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    line.close()


def beat(protocol, address, port, source):
    """Send a number every 20 ms until killed, and print the numbers that come back."""
    kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[protocol]
    line = socket.socket(socket.AF_INET, kind)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    line.bind(("0.0.0.0", source))
    line.connect((address, port))
    line.settimeout(BEAT)
    if protocol == "tcp":
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number, due, echoes = 0, time.monotonic(), b""
    while True:
        if time.monotonic() >= due:
            number, due = number + 1, due + BEAT
            line.send(f"{number}\n".encode())
        try:
            echoes += line.recv(65536)
        except TimeoutError:
            continue
        except ConnectionRefusedError:  # an ICMP error; the next may get through
            continue
        except ConnectionAbortedError:  # ss --kill
            return
        *whole, echoes = echoes.split(b"\n")
        for echo in whole:
            if echo.isdigit():
                say(f"{echo.decode()} {time.monotonic()}")


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(arguments[0], int(arguments[1])))
    elif role == "hear":
        hear(int(arguments[0]), *arguments[1:])
    elif role == "reply":
        hear(int(arguments[0]), answers=True)
    elif role == "swallow":
        swallow(int(arguments[0]))
    elif role == "pour":
        pour(arguments[0], int(arguments[1]), int(arguments[2]))
    elif role == "call":
        asyncio.run(run_all(json.loads(arguments[0])))
    elif role == "beat":
        beat(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
