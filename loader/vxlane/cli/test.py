# SPDX-License-Identifier: Apache-2.0
"""`vxlane test`: whether this node's pods reach other nodes and pods, and by which path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import click

from vxlane.cli import complete, probe_pods
from vxlane.cli.cni_options import places
from vxlane.cli.common import Json, as_json, emit, examples, need_root
from vxlane.connectivity import echo, peers
from vxlane.connectivity.checks import NO_PEERS, NO_SERVICE, NO_TARGET, Prober
from vxlane.connectivity.peers import Known
from vxlane.connectivity.pod import ProbePod
from vxlane.connectivity.result import Finding, document
from vxlane.errors import ConfigError, VxlaneError
from vxlane.overlay.node_cache import saved_peers
from vxlane.runtime import netns
from vxlane.show.table import columns
from vxlane.util import interrupt
from vxlane.util.places import state_directory

Service = tuple[IPv4Address, int]
End = tuple[IPv4Address, int | None]
"""An address, and a port if one was given."""


_WORDS = {"passed": "passed", "failed": "failed", "skipped": "not tried"}


def _end(_ctx: click.Context, _param: click.Parameter, text: str | None) -> End | None:
    """ADDRESS[:PORT], read."""
    if text is None:
        return None
    address, colon, port = text.partition(":")
    try:
        number = int(port) if colon else None
        if number is None or 0 < number < 1 << 16:
            return IPv4Address(address), number
    except ValueError:
        pass
    raise click.BadParameter(f"{text!r} is not an IPv4 address, or one with :PORT")


def _service(ctx: click.Context, param: click.Parameter, text: str | None) -> Service | None:
    """ADDRESS:PORT, read."""
    end = _end(ctx, param, text)
    if end is None:
        return None
    address, port = end
    if port is None:
        raise click.BadParameter(f"{text!r} has no port; write ADDRESS:PORT")
    return address, port


@click.command(
    epilog=examples(
        "vxlane test",
        "vxlane test node2",
        "vxlane test --serve",
        "vxlane test --target 10.42.2.9 --service 10.96.0.10:53",
        "vxlane test --json | jq '.tests[] | select(.result == \"failed\")'",
    )
)
@click.argument("node_name", metavar="[NODE]", required=False, shell_complete=complete.peers)
@click.option(
    "--target",
    callback=_end,
    metavar="ADDRESS[:PORT]",
    shell_complete=complete.pod_addresses,
    help="Test the way to this pod. Without a port it must be one that --serve made.",
)
@click.option(
    "--service",
    callback=_service,
    metavar="ADDRESS:PORT",
    help="Connect to this Service by TCP too.",
)
@click.option(
    "--serve", is_flag=True, help="Make a pod that answers, print its address, wait for Ctrl-C."
)
@places
@as_json
def test(  # noqa: PLR0913 (a command's options are its arguments)
    *,
    node_name: str | None,
    target: End | None,
    service: Service | None,
    serve: bool,
    cni_bin_dir: Path,
    cni_conf_dir: Path,
    network_name: str,
    as_json: bool,
) -> None:
    """Test whether this node's pods reach other nodes.

    The node's own CNI plugins make a pod, which is removed at the end. It sends pings and packets
    of growing size to the VTEP of NODE, or of each peer. That needs nothing on the other node. TCP
    and UDP need a pod that answers: run `vxlane test --serve` on the other node, and give the
    address that it prints with --target.

    NODE is a node's name, or an address or a pod CIDR that `vxlane peers` lists. docs/operate.md
    explains each test. The exit status is 1 if a test failed.
    """
    _check_use(node_name, target, service, serve=serve)
    need_root()
    interrupt.catch()
    network = probe_pods.network(cni_bin_dir, cni_conf_dir, network_name)
    state = state_directory()
    pods = probe_pods.cleared(state)
    with contextlib.ExitStack() as stack:
        if serve:
            _serve(stack.enter_context(pods.made(network)), as_json=as_json)
            return
        maps = probe_pods.maps(stack, state)
        known = peers.read(maps, {peer.pod_cidr: peer.name for peer in saved_peers(state)})
        chosen = _chosen(known, node_name, is_needed=not (target or service))
        pod = stack.enter_context(pods.made(network))
        findings = list(_findings(Prober(pod, maps, state), known, chosen, target, service))
    made = document(str(pod.address), findings)
    emit(made, _text, as_json=as_json)
    if made["failed"]:
        raise SystemExit(1)


def _check_use(
    node_name: str | None, target: End | None, service: Service | None, *, serve: bool
) -> None:
    """UsageError: the arguments contradict each other."""
    if serve and (node_name or target or service):
        raise click.UsageError("--serve answers tests, and tests nothing itself; run it alone")
    if node_name and target:
        raise click.UsageError("give NODE or --target: a target is tested wherever it is")


def _chosen(known: list[Known], node_name: str | None, *, is_needed: bool) -> list[Known]:
    """The peers to test: the one of that name, or all if no other end was named."""
    if node_name is not None:
        try:
            return [peers.named(known, node_name)]
        except ConfigError as error:
            raise click.UsageError(str(error)) from None
    if is_needed and not known:
        raise VxlaneError(
            "this node knows no peers, neither by the kernel's entries nor by the bypass's maps; "
            "see vxlane status"
        )
    return known if is_needed else []


def _findings(
    prober: Prober,
    known: list[Known],
    chosen: list[Known],
    target: End | None,
    service: Service | None,
) -> Iterator[Finding]:
    for peer in chosen:
        yield from prober.to_peer(peer)
    if not chosen:
        yield from NO_PEERS
    if target:
        address, port = target
        of = next((peer for peer in known if address in peer.cidr), None)
        yield from prober.to_pod(address, port, of)
    else:
        yield from NO_TARGET
    yield prober.to_service(*service) if service else NO_SERVICE


def _serve(pod: ProbePod, *, as_json: bool) -> None:
    """Answer until Ctrl-C, which is the usual end."""
    with netns.entered(pod.netns):
        server = echo.Server.here()
    with contextlib.suppress(KeyboardInterrupt):
        emit({"address": str(pod.address), "port": echo.PORT}, _serving, as_json=as_json)
        server.run()


def _serving(told: Json) -> str:
    return (
        f"{told['address']} answers ping, and TCP and UDP on port {told['port']}, until Ctrl-C.\n"
        f"On another node: vxlane test --target {told['address']}"
    )


def _text(made: Json) -> str:
    counts = ", ".join(f"{made[key]} {word}" for key, word in _WORDS.items())
    rows = [row | {"result": _WORDS[row["result"]]} for row in made["tests"]]
    table = columns(("to", "test", "result", "detail"), rows)
    return f"{table}\n\nfrom {made['probe']}: {counts}"
