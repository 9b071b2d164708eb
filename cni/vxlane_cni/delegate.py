# SPDX-License-Identifier: Apache-2.0
"""Runs another plugin with this call's environment: the specification's delegation.

Imports errors, request and wire. It needs subprocess, so only the main role imports it.
"""

from __future__ import annotations

import os
import subprocess

from vxlane_cni import wire
from vxlane_cni.errors import INTERNAL, INVALID_ENVIRONMENT, IO_FAILURE, CniError, DelegateError
from vxlane_cni.request import Request
from vxlane_cni.wire import JsonObject


def require(request: Request, conf: JsonObject) -> None:
    """CniError 5 unless the plugin that `conf` names is installed, and the IPAM that it calls.

    A plugin other than bridge needs the IPAM only if the configuration names one.
    """
    _find(request, conf)
    ipam = conf.get("ipam")
    if isinstance(ipam, dict) and (conf["type"] == "bridge" or "type" in request.mapping("ipam")):
        _find(request, ipam)


def run(request: Request, conf: JsonObject) -> object:
    """Call the plugin that `conf` names. Returns its answer to ADD; None for other commands.

    DelegateError with the plugin's own code and words when it refuses; else CniError.
    """
    program = _find(request, conf)
    try:
        done = subprocess.run(  # its stderr is ours: the runtime's log
            [program],
            input=wire.dumps(conf),
            stdout=subprocess.PIPE,
            env=request.environ,
            check=False,
        )
    except OSError as error:
        raise CniError(IO_FAILURE, f"can't run {program}: {error.strerror}") from None
    if not done.returncode and request.command != "ADD":
        return None
    try:
        answer = wire.loads(done.stdout) if done.stdout.strip() else None
    except ValueError as error:
        raise CniError(IO_FAILURE, f"{program} answered no JSON: {error}") from None
    if done.returncode:
        raise _failure(program, done.returncode, answer)
    return answer


def _find(request: Request, conf: JsonObject) -> str:
    """Path of the executable of `conf`'s plugin in CNI_PATH."""
    plugin, directories = str(conf.get("type")), request.environ.get("CNI_PATH", "")
    if not directories:
        raise CniError(INVALID_ENVIRONMENT, "CNI_PATH is not set")
    for directory in directories.split(":"):
        path = os.path.join(directory, plugin)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    advice = "install containernetworking-plugins there"
    raise CniError(IO_FAILURE, f"no plugin {plugin} in CNI_PATH={directories}", advice)


def _failure(program: str, status: int, answer: object) -> CniError:
    """The error that a delegate reported, or one that says that it reported none."""
    match answer:
        case {"code": int(code), "msg": str(message), **more}:
            # libcni in a delegate makes an error of code 0 of an IPAM that ended without one.
            kind = DelegateError if code else CniError
            return kind(code, f"{program}: {message}", str(more.get("details") or ""))
        case _:
            return CniError(INTERNAL, f"{program} ended with status {status} and no error object")
