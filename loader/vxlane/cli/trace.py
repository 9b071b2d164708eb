# SPDX-License-Identifier: Apache-2.0
"""`vxlane trace`: a line for each packet and program, as they happen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any

import click

from vxlane.cli import packet_options
from vxlane.cli.common import as_json, examples
from vxlane.trace.event import Event, document, line
from vxlane.trace.follow import Outcome, follow
from vxlane.trace.names import PodsOfNow
from vxlane.util.names import device_name
from vxlane.util.places import state_directory

_BUFFER = 4096


@click.command(
    epilog=examples(
        "vxlane trace --pod 10.42.1.5 --port 80",
        "vxlane trace --verdict kernel_path --count 20",
        "vxlane trace --flow 'tcp 10.42.1.5:40000 10.42.2.7:80' --json | jq .verdict",
    )
)
@packet_options.packet_options(_BUFFER, least=4)
@as_json
def trace(count: int | None, *, as_json: bool, **options: Any) -> None:
    """Show packets at the programs, each with its verdict and what that means.

    from_pod sees all that pods send, from_nic all that the NIC receives. to_nic and to_pod see
    pods' packets that come out of the kernel path. A line shows the packet as it leaves the
    program, without its tunnel. A super-packet of 64 kB is one line.

    The filters work in the kernel, and a packet must match all of them. It costs nothing while it
    does not run. Only one trace or capture can run at a time.
    """
    device, pods = cache(device_name), PodsOfNow(state_directory())
    shown = 0
    with packet_options.session(options) as session:

        def show(events: Iterable[Event]) -> None:
            nonlocal shown
            names = pods.by_address()
            for event in events:
                told = document(event, session.real, device, names)
                click.echo(json.dumps(told) if as_json else line(told))
                shown += 1

        packet_options.say_ready()
        try:
            outcome = follow(session, show, count)
        except BrokenPipeError:
            raise  # A reader that has seen enough wants to hear no more.
        except OSError:
            counts = Outcome(shown, session.lost, session.unseen, session.stepped)
            packet_options.conclude(counts)
            raise
    packet_options.conclude(outcome)
