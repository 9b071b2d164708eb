# SPDX-License-Identifier: Apache-2.0
"""The plugin's entry: the role of a call, and what is written to stdout.

stdout is empty or holds one JSON object: a result, or the error object with exit status 1. Messages
for people go to stderr. Imports the modules beside it; `flannel` only for the main role.
"""

from __future__ import annotations

import sys

from vxlane_cni import chained, scratch, system, wire
from vxlane_cni.errors import INTERNAL, CniError
from vxlane_cni.request import NEWEST, VERSIONS, Request, decode
from vxlane_cni.wire import JsonObject

TYPE_CHECKING = False  # typing's own would import typing
if TYPE_CHECKING:
    from collections.abc import Mapping


def main() -> int:
    """Answer the runtime. Returns the exit status: 1 if the call fails."""
    stdin = b""
    try:
        stdin = sys.stdin.buffer.read() if sys.stdin else b""  # None: it was closed
        answer = call(system.environ(), stdin)
        line = b"" if answer is None else wire.dumps(answer) + b"\n"
        status = 0
    except CniError as error:
        line, status = _report(error, stdin), 1
    except Exception as error:  # noqa: BLE001 (a runtime understands only the error object)
        fault = CniError(INTERNAL, f"a fault in vxlane: {error!r}", _place(error))
        line, status = _report(fault, stdin), 1
    if line:  # else stdout may be closed
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return status


def call(environ: Mapping[str, str], stdin: bytes) -> JsonObject | None:
    """Carry out the command in the environment. Returns the result, if the command has one.

    CniError: it failed.
    """
    if environ.get("CNI_COMMAND") == "VERSION":
        return {"cniVersion": _version_of(stdin), "supportedVersions": list(VERSIONS)}
    request = Request(environ, decode(stdin))
    commands = chained.COMMANDS
    if _is_main(request):
        from vxlane_cni import flannel  # noqa: PLC0415 (chained, the usual role, starts faster)

        commands = flannel.COMMANDS
    return commands[request.command](request)


def _is_main(request: Request) -> bool:
    """Whether the call is for the main role.

    Only ADD tells by itself: in the chained role it has the prevResult of another plugin. Later
    commands have the chain's final result in both roles, and below 0.4.0 none. For them the type
    and the keys of the configuration decide, and at last ADD's note.
    """
    if request.command == "ADD":
        return request.conf.get("prevResult") is None
    return scratch.says_main(request) or (bool(request.container_id) and scratch.is_own(request))


def _version_of(stdin: bytes) -> str:
    """The version of the answer, also for a configuration that can't be read."""
    try:
        version = decode(stdin).get("cniVersion")
    except CniError:
        return NEWEST
    return version if isinstance(version, str) and version in VERSIONS else NEWEST


def _place(error: Exception) -> str:
    """File and line that raised `error`, for a report of the fault."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _report(error: CniError, stdin: bytes) -> bytes:
    return wire.dumps(error.report(_version_of(stdin))) + b"\n"
