# SPDX-License-Identifier: Apache-2.0
"""SIGTERM, Ctrl-C and a closed terminal end a program wherever they strike it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from vxlane.util import interrupt

BEGIN = """
import gc, signal, time, weakref
from vxlane.util import interrupt
interrupt.catch()
class Dying:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
class Cycle:
    pass
def strike(*_):
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize(
    "place",
    [
        "strike()",
        "Dying()",
        "thing = Cycle(); ref = weakref.ref(thing, strike); del thing",
        "gc.callbacks.append(strike); gc.collect()",
        "import asyncio; l = asyncio.new_event_loop(); l.call_soon(strike); l.run_forever()",
    ],
    ids=["anywhere", "destructor", "weak-reference", "collection", "event-loop"],
)
def test_a_signal_ends_the_program_wherever_it_strikes(place):
    """Also where Python ignores what is raised; its name is told, and cleaning up is done."""
    program = f"{BEGIN}\ntry:\n    {place}\n    time.sleep(5)\n"
    program += "except KeyboardInterrupt as came:\n    strike()\n    print(came, 'cleaned up')\n"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=4, check=True
    )
    assert ended.stdout == "SIGTERM cleaned up\n"
    assert ended.stderr == ""


@pytest.mark.parametrize(("before", "said"), [("SIG_DFL", "SIGHUP"), ("SIG_IGN", "went on")])
def test_a_closed_terminal_ends_the_program_unless_nohup_does(before, said):
    """It ends as by SIGTERM; who has SIGHUP ignored wants the program to outlive the terminal."""
    program = f"""
import signal
from vxlane.util import interrupt
signal.signal(signal.SIGHUP, signal.{before})
interrupt.catch()
try:
    signal.raise_signal(signal.SIGHUP)
    print("went on")
except KeyboardInterrupt as came:
    print(came)
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == (f"{said}\n", "")


def test_each_signal_breaks_off_what_the_one_before_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one right behind it, as timeout(1) sends for each Ctrl-C."""
    caught = {number: signal.getsignal(number) for number in interrupt.signals()}
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    interrupt.catch_each()
    try:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            now += 1
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
