# SPDX-License-Identifier: Apache-2.0
"""`vxlane bench`: measures the bypass against other paths, and compares two such runs.

Imports the bench's modules and click.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from vxlane.bench import compare as comparing
from vxlane.bench import document as documents
from vxlane.bench import far_end, given, live, live_paths, talk
from vxlane.bench.environment import check_congestion
from vxlane.bench.page import page
from vxlane.bench.plan import BYPASS, KERNEL, SECONDS, Depth
from vxlane.bench.ratios import FEWEST
from vxlane.bench.run import Wanted, run
from vxlane.bench.text import text
from vxlane.cli import probe_pods
from vxlane.cli.cni_options import places
from vxlane.cli.common import (
    Json,
    Number,
    PathName,
    examples,
    filled,
    is_alone,
    need_root,
    need_writable,
    write_document,
)
from vxlane.connectivity.pod import ProbePod
from vxlane.errors import ConfigError
from vxlane.lab.plan import check_name
from vxlane.util import interrupt, scratch
from vxlane.util.jsontext import parse_json
from vxlane.util.places import state_directory

_FILE = PathName(dir_okay=False)
_CNI = ("cni_bin_dir", "cni_conf_dir", "network_name")
_MEASURING = (
    "quick",
    "full",
    "rounds",
    "seconds",
    "work",
    "congestion",
    "json_file",
    "html_file",
)
_HEEDED = {
    "serve": _CNI,
    "between": (*_CNI, *_MEASURING),
    "stock": ("bypass", *_MEASURING),
    "": ("name", *_MEASURING),
}
"""What each way to run heeds, by its option; labs have none."""
_ENDS = "CLIENT,SERVER,ADDRESS"


def _address(_ctx: click.Context, _param: click.Parameter, text: str | None) -> IPv4Address | None:
    """ADDRESS, read."""
    try:
        return None if text is None else IPv4Address(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not an IPv4 address") from None


def _works(_ctx: click.Context, _param: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """BadParameter: one is empty, and so in every name."""
    if any(not word.strip() for word in words):
        raise click.BadParameter("give a word of a workload's name, such as request")
    return words


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "vxlane bench --quick",
        "vxlane bench --json run.json --html run.html",
        "vxlane bench --work request --rounds 11",
        "vxlane bench --stock a,b,10.0.0.2 --bypass c,d,10.1.0.2",
        "vxlane bench --stock ssh:n1,ssh:n2,10.0.0.2 --bypass ssh:n3,ssh:n4,10.1.0.2",
        "vxlane bench --serve",
        "vxlane bench --between 10.42.2.9 --quick",
    ),
)
@click.option("--quick", is_flag=True, help="Measure for less than three minutes.")
@click.option("--full", is_flag=True, help="Measure everything, for an hour and a half.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=FEWEST,
    show_default=True,
    help="Measure each path this many times. Fewer than five give no result.",
)
@click.option("--seconds", type=Number(0.1), help="Length of one measurement, seconds.")
@click.option(
    "--work",
    multiple=True,
    callback=_works,
    help="Measure only workloads with this word in their name. Can be repeated.",
)
@click.option(
    "--congestion",
    callback=filled,
    metavar="NAME",
    help="Measure TCP throughput with this congestion control, such as cubic. The default is the"
    " sender's own.",
)
@click.option(
    "--json",
    "json_file",
    type=_FILE,
    metavar="FILE",
    help="Write the figures to this file; - is standard output.",
)
@click.option(
    "--html",
    "html_file",
    type=_FILE,
    metavar="FILE",
    help="Write a page with plots to this file; - is standard output.",
)
@click.option(
    "--stock", callback=filled, metavar=_ENDS, help="Measure stock flannel between these ends."
)
@click.option(
    "--bypass", callback=filled, metavar=_ENDS, help="Measure the bypass between these ends."
)
@click.option(
    "--between",
    callback=_address,
    metavar="ADDRESS",
    help="Measure from this node to the pods that --serve made on another node.",
)
@click.option("--serve", is_flag=True, help="Make the pods for --between, and wait for Ctrl-C.")
@places
@click.option("--name", default="bench", show_default=True, help="Prefix of the labs' names.")
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure the bypass against stock flannel and other paths.

    The paths are measured in labs, which are removed at the end. With --stock and --bypass they are
    measured between ends of your own. CLIENT and SERVER are network namespaces, or hosts as
    ssh:[USER@]HOST, and ADDRESS is the server's. Hosts are reached by ssh with your keys. One
    program is copied there, and removed at the end.

    With --between the bypass is measured against the kernel path between two running nodes. Run
    --serve on the other node first. The nodes' own CNI plugins make two pairs of pods, which are
    removed at the end. One pair may be bypassed, and no agent is told of the other. All other pods
    keep their path, but the measurements load the network as much as they can.

    The exit status is 1 if a row without ~ shows the bypass slower than stock, or than the kernel
    path, by more than its spread, or if a check of the paths failed.
    """
    if not is_alone(context):
        return
    interrupt.catch()
    wanted = _wanted(options)
    _need_heeded(context)
    if not wanted.is_elsewhere:
        need_root()
        if wanted.congestion:
            check_congestion(wanted.congestion)
    if options["serve"]:
        _serve(options)
        return
    need_writable(options["json_file"], options["html_file"])
    found = _measured(wanted, options)
    if Path("-") not in {options["json_file"], options["html_file"]}:
        click.echo(text(found))
    with contextlib.ExitStack() as both:  # the other one too if one can't be written
        both.callback(write_document, options["html_file"], page(found))
        both.callback(write_document, options["json_file"], json.dumps(found, indent=2) + "\n")
    context.exit(1 if found["failures"] else 0)


def _need_heeded(context: click.Context) -> None:
    """UsageError: an option was given that means nothing for what is to be done."""
    given = {
        str(option.name): option.opts[-1]
        for option in context.command.params
        if context.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
    }
    way = next((name for name in _HEEDED if name in given), "")
    where = f"with {given[way]}" if way else "for labs, which have plugins of their own"
    for name, option in given.items():
        if name not in (way, *_HEEDED[way]):
            raise click.UsageError(f"{option} means nothing {where}; leave it out")


def _measured(wanted: Wanted, options: Json) -> Json:
    def progress(word: str) -> None:
        click.echo(f"bench: {word}", err=True)

    if not options["between"]:
        return run(wanted, progress)
    state = state_directory()
    with _pods(options, state) as pods:
        return live.run(wanted, pods, options["between"], state, progress)


def _serve(options: Json) -> None:
    """Answer until Ctrl-C, which is the usual end."""
    state = state_directory()
    with contextlib.ExitStack() as stack:
        program = talk.build(stack.enter_context(scratch.directory("bench")))
        pods = live_paths.ends(
            stack.enter_context(_pods(options, state)), probe_pods.maps(stack, state)
        )
        end = stack.enter_context(far_end.serving(pods, program))
        address = pods[KERNEL].pod.address
        lacks = "" if end.has_iperf3 else "; TCP throughput needs iperf3 here"
        with contextlib.suppress(KeyboardInterrupt):
            click.echo(f"{address} answers vxlane bench until Ctrl-C{lacks}.")
            click.echo(f"On another node: vxlane bench --between {address}")
            end.run()


@contextlib.contextmanager
def _pods(options: Json, state: Path) -> Iterator[dict[str, ProbePod]]:
    """A pod for each path within the block."""
    names = ("cni_bin_dir", "cni_conf_dir", "network_name")
    network = probe_pods.network(*(options[name] for name in names))
    pods = probe_pods.cleared(state)
    with pods.made(network) as bypass, pods.made(network.without_agent()) as kernel:
        yield {BYPASS: bypass, KERNEL: kernel}


def _wanted(options: Json) -> Wanted:
    """click.UsageError: the options don't fit together."""
    kinds = [bool(options[kind]) for kind in ("serve", "between", "stock")]
    if sum(kinds) > 1:
        raise click.UsageError("give one of --serve, --between and --stock")
    if options["quick"] and options["full"]:
        raise click.UsageError("give --quick or --full, not both")
    depth = Depth.QUICK if options["quick"] else Depth.FULL if options["full"] else Depth.DEFAULT
    texts = {path: options[path] for path in ("stock", "bypass") if options[path]}
    if "bypass" in texts and "stock" not in texts:
        raise click.UsageError("--bypass is compared with --stock; give both, or --stock alone")
    return Wanted(
        depth=depth,
        rounds=options["rounds"],
        seconds=options["seconds"] or SECONDS[depth],
        works=options["work"],
        given={path: given.parse(text) for path, text in texts.items()} or None,
        name=check_name(options["name"]),
        congestion=options["congestion"],
    )


@bench.command(
    epilog=examples(
        "vxlane bench compare yesterday.json today.json",
        "vxlane bench compare 6.1.json 6.12.json",
    )
)
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.pass_context
def compare(context: click.Context, first: Path, second: Path) -> None:
    """Compare what two runs wrote with --json.

    The exit status is 1 if a ratio of SECOND is below that of FIRST and their quartiles don't
    overlap.
    """
    runs = [_read(file) for file in (first, second)]
    compared = comparing.compare(*runs)
    click.echo(comparing.text(compared, *runs))
    context.exit(1 if any(one.change is comparing.Change.WORSE for one in compared) else 0)


def _read(file: Path) -> Json:
    """ConfigError: it can't be read, or no run wrote it."""
    try:
        found = documents.read(parse_json(file.read_bytes()), str(file))
        comparing.text(comparing.compare(found, found), found, found)  # whether all is there
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; write it with: vxlane bench --json") from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise ConfigError(f"{file} is damaged; write it with: vxlane bench --json") from None
    return found
