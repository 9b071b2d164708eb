# SPDX-License-Identifier: Apache-2.0
"""What commands that look at packets share: how a look ends, and what is said of it."""

from __future__ import annotations

import os
import signal
import time

import click
import pytest
from click.testing import CliRunner

from vxlane.cli.capture import capture
from vxlane.cli.packet_options import conclude, stopped_by_signals, summary
from vxlane.errors import VxlaneError
from vxlane.trace.follow import Outcome


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first signal asks for the end, and one right behind it is the same. A second one
    interrupts; afterwards all is as before.
    """
    before = signal.getsignal(number)
    asked = []
    with stopped_by_signals(lambda: asked.append(1)):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert asked == [1]
        later = time.monotonic() + 1
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert asked == [1]
    assert signal.getsignal(number) is before


def test_summary() -> None:
    """What was lost or not seen is said, with what helps."""
    assert summary(Outcome(1234, 0, 0.0)) == "1,234 packets, 0 lost"
    lost = "1 packets, 2 lost since the buffer was full: narrow the filter, or raise --buffer"
    assert summary(Outcome(1, 2, 0.0)) == lost
    stopped = "1 packets, 0 lost; none was seen for 3.0 s, while this process was stopped"
    assert summary(Outcome(1, 0, 3.0)) == stopped
    stepped = "1 packets, 0 lost; the clock was set by -0.500 s: times are by that of the start"
    assert summary(Outcome(1, 0, 0.0, -0.5)) == stepped


def test_a_look_that_is_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    """What was taken and lost is told all the same, and then why there is no more."""
    with pytest.raises(VxlaneError, match="programs were replaced or removed meanwhile"):
        conclude(Outcome(1, 2, 0.0, is_cut_short=True))
    assert capsys.readouterr().err.startswith("1 packets, 2 lost")


@pytest.mark.parametrize(("text", "size"), [("500", 500), ("10M", 10 << 20), ("2G", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    """A size of --rotate is a number with K, M or G."""
    made = capture.make_context("capture", ["-w", "x", "--rotate", text])
    assert made.params["rotate"] == size


@pytest.mark.parametrize("text", ["0", "M", "10T", "-1K", "1.5M"])
def test_no_size(text: str) -> None:
    """What is no size is refused with an example."""
    with pytest.raises(click.BadParameter, match="give a number with K, M or G, such as 10M"):
        capture.make_context("capture", ["-w", "x", "--rotate", text])


def test_a_capture_has_room_for_a_super_packet() -> None:
    """A buffer in which no super-packet has room is refused."""
    with pytest.raises(click.BadParameter, match="128"):
        capture.make_context("capture", ["-w", "x", "--buffer", "64"])


def test_keep_is_about_rotate() -> None:
    """Without --rotate there is one file, so --keep would say nothing."""
    done = CliRunner().invoke(capture, ["-w", "x", "--keep", "3"])
    assert done.exit_code == 2
    assert "--keep counts the files of --rotate; give that too" in done.output
