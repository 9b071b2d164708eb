# SPDX-License-Identifier: Apache-2.0
"""Calls of the agent over its Unix socket: one request, one answer.

Each is one JSON object on one line. The agent admits root only. Imports errors and wire. _socket
and _struct are the C modules beneath the standard library's, with a quarter of their start-up time.
"""

from __future__ import annotations

from _socket import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack

from vxlane_cni import wire
from vxlane_cni.errors import AgentError, AgentRefusedError
from vxlane_cni.wire import JsonObject

DEFAULT_STATE_DIR = "/run/vxlane"

_TIMEOUT = pack("ll", 5, 0)  # struct timeval: the longest that a pod waits for the agent


def call(state_dir: str, question: JsonObject) -> JsonObject:
    """Send `question` to the agent of `state_dir` and return its answer.

    AgentError: no agent answers in time. AgentRefusedError: it answered with an error.
    """
    try:
        line = _exchange(f"{state_dir}/agent.sock", wire.dumps(question) + b"\n")
        answer = wire.loads(line)
    except BlockingIOError:
        raise AgentError("the agent does not answer") from None
    except OSError as error:
        raise AgentError(
            f"no agent at {state_dir}/agent.sock ({error.strerror or error})"
        ) from None
    except ValueError:
        raise AgentError("the agent's answer is not JSON") from None
    if not isinstance(answer, dict):
        raise AgentError("the agent's answer is no JSON object")
    if answer.get("ok") is not True:
        raise AgentRefusedError(f"the agent says: {answer.get('error')}")
    return answer


def _exchange(path: str, line: bytes) -> bytes:
    """Send a line, and return the line of the answer. AgentError: it is cut.

    The time limits are socket options. Python's settimeout makes the socket non-blocking, and then
    connect() to a Unix socket with a full backlog fails at once, as it would for a hundred pods
    that start together.
    """
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        for option in (SO_SNDTIMEO, SO_RCVTIMEO):
            connection.setsockopt(SOL_SOCKET, option, _TIMEOUT)
        connection.connect(path)
        connection.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            received = connection.recv(65536)
            if not received:
                raise AgentError("the agent ended before it answered")
            answer += received
        return answer
    finally:
        connection.close()
