# SPDX-License-Identifier: Apache-2.0
"""The way to the agent: one question over its Unix socket, one answer.

The protocol is one JSON object a line each way; the agent admits root only. Imports errors
and wire; _socket and _struct are what the standard library's modules are made of, at a quarter
of their start-up time.
"""

from __future__ import annotations

from _socket import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack

from vxlane_cni import wire
from vxlane_cni.errors import AgentError, AgentRefusedError
from vxlane_cni.wire import JsonObject

DEFAULT_STATE_DIR = "/run/vxlane"

_TIMEOUT = pack("ll", 5, 0)  # struct timeval: a pod waits no longer for an accelerator
_LONGEST_ANSWER = 1 << 20  # bytes


def call(state_dir: str, question: JsonObject) -> JsonObject:
    """Put `question` to the agent that keeps `state_dir` and return its answer.

    AgentError when it isn't there or doesn't answer in time, AgentRefusedError when it answers
    that it could not.
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
    """Send a line, return the line that comes back.

    The time-outs are the socket's own, not Python's settimeout: that makes the socket
    non-blocking, and connect() to a Unix socket whose backlog is full then fails at once,
    which a hundred pods starting together would see.
    """
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        for option in (SO_SNDTIMEO, SO_RCVTIMEO):
            connection.setsockopt(SOL_SOCKET, option, _TIMEOUT)
        connection.connect(path)
        connection.sendall(line)
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < _LONGEST_ANSWER:
            received = connection.recv(65536)
            if not received:
                break
            answer += received
        return answer
    finally:
        connection.close()
