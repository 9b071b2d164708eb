# SPDX-License-Identifier: Apache-2.0
"""How a long-running command is ended from outside: SIGTERM and SIGINT, which is Ctrl-C.

Imports nothing of vxlane: the agent and the lab are ended alike.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

_SENT_AGAIN_AFTER = 0.01
"""Seconds; by then the finalizer that swallowed the interrupt is over."""


def catch() -> None:
    """From now on SIGTERM and SIGINT raise KeyboardInterrupt with the signal's name, once.

    Once, because what it unwinds must run to its end; kill -9 is there for the impatient. It is
    KeyboardInterrupt for SIGTERM too: asyncio, on which pyroute2 is built, takes any other
    exception for a failed callback and goes on.

    A signal's handler runs between any two instructions, also within a finalizer (`__del__`, a
    weak reference's callback, a garbage collection), and what is raised there Python only
    reports (sys.unraisablehook) and forgets. It is raised again then.
    """
    came = ""

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = signal.Signals(number).name
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(came)

    def again(_number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt(came)

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _SENT_AGAIN_AFTER)
        else:
            sys.__unraisablehook__(lost)

    sys.unraisablehook = unraisable
    signal.signal(signal.SIGALRM, again)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
