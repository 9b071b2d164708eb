# SPDX-License-Identifier: Apache-2.0
"""`vxlane profile`: where time goes on live traffic, kernel path and bypass side by side."""

from __future__ import annotations

import contextlib
import json
import time

import click

from vxlane.cli import complete
from vxlane.cli.common import examples, need_writable
from vxlane.errors import VxlaneError
from vxlane.profile.measure import take
from vxlane.profile.page import page
from vxlane.profile.text import text
from vxlane.util.places import state_directory


@click.command(
    epilog=examples(
        "vxlane profile --seconds 30",
        "vxlane profile --pod 10.42.1.2 --html profile.html",
        "vxlane profile --json - | jq .latency.pod_to_nic",
    )
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="How long. Ctrl-C ends it sooner, and shows what there is by then.",
)
@click.option(
    "--pod",
    metavar="POD",
    shell_complete=complete.pods,
    help="Follow one pod's packets: its name, address or veth.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    help="Write the figures there; - for standard output, without the tables."
    " docs/json.md explains the keys.",
)
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    help="Write a page with tables and plots there; - for standard output.",
)
def profile(seconds: float, pod: str | None, json_file: str | None, html_file: str | None) -> None:
    """Show where the time of this node's live packets goes, by kernel path and bypass.

    Packets are followed from a pod to the NIC and back, and told apart by the way they took; the
    programs' run time, the CPUs' time, sizes, retransmits and SYNs without an answer stand beside.
    docs/measure.md says how it is measured. It costs while it runs, and nothing afterwards.
    """
    need_writable(json_file, html_file)
    figures = take(state_directory(), pod, lambda: _wait(seconds))
    _write(html_file, page(figures))
    _write(json_file, json.dumps(figures, indent=2) + "\n")
    if "-" not in {json_file, html_file}:
        click.echo(text(figures))


def _write(place: str | None, content: str) -> None:
    if place is None:
        return
    try:
        with click.open_file(place, "w", encoding="utf-8") as output:
            output.write(content)
    except OSError as error:
        raise VxlaneError(f"can't write {place}: {error.strerror}") from None


def _wait(seconds: float) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(seconds)
