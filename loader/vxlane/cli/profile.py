# SPDX-License-Identifier: Apache-2.0
"""`vxlane profile`: where time goes on live traffic, kernel path and bypass side by side."""

from __future__ import annotations

import contextlib
import json
import time

import click

from vxlane.cli import complete
from vxlane.cli.common import Number, examples, filled, need_writable, write_document
from vxlane.profile.measure import take
from vxlane.profile.page import page
from vxlane.profile.text import text
from vxlane.util import interrupt
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
    type=Number(min=0.1),
    default=10.0,
    show_default=True,
    help="Measure for this many seconds. Ctrl-C ends it sooner, and shows the figures so far.",
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
    callback=filled,
    help="Write the figures to this file; - is standard output, without the tables."
    " docs/json.md explains the keys.",
)
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    callback=filled,
    help="Write a page with tables and plots to this file; - is standard output.",
)
def profile(seconds: float, pod: str | None, json_file: str | None, html_file: str | None) -> None:
    """Show where the time of this node's packets goes, on the kernel path and on the bypass.

    Packets are followed from a pod to the NIC and back, and counted by the path that they took.
    Beside them are the programs' run time, CPU time, packet sizes, retransmits and SYNs without an
    answer. docs/measure.md says how it is measured. It costs CPU time while it runs, and none
    afterwards.
    """
    interrupt.catch_each()
    need_writable(json_file, html_file)
    figures = take(state_directory(), pod, lambda: _wait(seconds))
    # Each of the three is tried, for nobody can measure this again.
    with contextlib.ExitStack() as written:
        written.callback(write_document, html_file, page(figures))
        written.callback(write_document, json_file, json.dumps(figures, indent=2) + "\n")
        if "-" not in {json_file, html_file}:
            click.echo(text(figures))


def _wait(seconds: float) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        click.echo(f"profiling for {seconds:g} s; Ctrl-C ends it sooner", err=True)
        time.sleep(seconds)
