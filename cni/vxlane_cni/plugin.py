# SPDX-License-Identifier: Apache-2.0
"""The plugin's entry: which role a call is for, and what is written to stdout.

stdout holds one JSON object or nothing at all: a result, or the error object with exit
status 1. What a person should know goes to stderr.
Imports the modules beside it; flannel's, which only the main role needs, when needed.
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
    """Answer the runtime that started this process; the exit status, 1 when the call fails."""
    stdin = b""
    try:
        stdin = sys.stdin.buffer.read() if sys.stdin else b""  # None: it was closed
        answer = call(system.environ(), stdin)
        line = b"" if answer is None else wire.dumps(answer) + b"\n"
        status = 0
    except CniError as error:
        line, status = _report(error, stdin), 1
    except Exception as error:  # noqa: BLE001 (a runtime understands nothing but the object)
        fault = CniError(INTERNAL, f"a fault in vxlane: {error!r}", _place(error))
        line, status = _report(fault, stdin), 1
    if line:  # else stdout may be closed
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    return status


def call(environ: Mapping[str, str], stdin: bytes) -> JsonObject | None:
    """Do what the environment and stdin ask for; the result, if the command has one.

    CniError when it can't be done.
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

    Only ADD tells by itself: its prevResult is another plugin's. Everything later comes with
    the chain's final result, or below 0.4.0 with none, whatever the role. Then the type and
    the keys of the configuration must tell, or at last what ADD noted down.
    """
    if request.command == "ADD":
        return request.conf.get("prevResult") is None
    return scratch.says_main(request) or (bool(request.container_id) and scratch.is_own(request))


def _version_of(stdin: bytes) -> str:
    """The version to answer in, even to what could not be read."""
    try:
        version = decode(stdin).get("cniVersion")
    except CniError:
        return NEWEST
    return version if isinstance(version, str) and version in VERSIONS else NEWEST


def _place(error: Exception) -> str:
    """File and line that raised `error`, which is all that a report of the fault needs."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _report(error: CniError, stdin: bytes) -> bytes:
    return wire.dumps(error.report(_version_of(stdin))) + b"\n"
