# SPDX-License-Identifier: Apache-2.0
"""Ends a long-running command, such as the agent or the lab, by SIGTERM, SIGINT (Ctrl-C) or SIGHUP
(its terminal was closed).

Imports no other module of vxlane.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

_SAME_WITHIN = 0.3
"""Seconds. No person presses Ctrl-C again sooner."""
_SENT_AGAIN_AFTER = 0.01
"""Seconds. By then the finalizer that lost the interrupt has ended."""


def signals() -> tuple[signal.Signals, ...]:
    """The signals that end a command. SIGHUP is none where it is ignored, as nohup has it."""
    usual = (signal.SIGTERM, signal.SIGINT)
    ignores = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return usual if ignores else (*usual, signal.SIGHUP)


def catch_each(first: Callable[[], None] | None = None) -> None:
    """From now on each of these signals raises KeyboardInterrupt, as SIGINT does by itself; the
    first one calls `first` instead, if there is one.

    So a second one breaks off what the first one has begun. One right behind another is the same:
    timeout(1) sends a Ctrl-C on, which the terminal has sent to its child too.
    """
    came = -math.inf

    def interrupt(_number: int, _: FrameType | None) -> None:
        nonlocal came, first
        now = time.monotonic()
        if now - came < _SAME_WITHIN:
            return
        came, act, first = now, first, None
        if act is None:
            raise KeyboardInterrupt
        act()

    for number in signals():
        signal.signal(number, interrupt)


def catch() -> None:
    """From now on these signals raise KeyboardInterrupt with the signal's name, once.

    It is raised once, because the unwinding must run to its end; kill -9 still ends the process. It
    is KeyboardInterrupt for SIGTERM too: pyroute2 is built on asyncio, which takes any other
    exception for a failed callback and goes on.

    A signal's handler runs between any two instructions, also within a finalizer (`__del__`, a weak
    reference's callback, a garbage collection). Python reports an exception there
    (sys.unraisablehook) and drops it. Then it is raised again.
    """
    came = ""
    caught = signals()

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal came
        came = signal.Signals(number).name
        for each in caught:
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
    for number in caught:
        signal.signal(number, interrupt)
