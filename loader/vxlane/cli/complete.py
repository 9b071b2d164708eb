# SPDX-License-Identifier: Apache-2.0
"""What the shell offers for an argument that is a peer or a pod of this node.

Whoever completes a word may have no rights to read the maps, or there may be none. Then less is
offered, and nothing is said, for the shell would print it into the line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from vxlane.errors import VxlaneError
from vxlane.overlay.node_cache import saved_peers
from vxlane.show.node import open_maps
from vxlane.util.places import state_directory
from vxlane.why import node


def peers(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """Names, underlay addresses and pod CIDRs of peers that begin with `begun`."""
    names = [peer.name for peer in saved_peers(state_directory())]
    return _beginning([*names, *_read(_of_peers)], begun)


def pods(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """Names and addresses of this node's pods that begin with `begun`."""
    return _beginning(_read(node.pods), begun)


def pod_addresses(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[str]:
    """Addresses of this node's pods that begin with `begun`."""
    return _beginning(_read(_of_pods), begun)


def _of_peers(state: Path) -> list[str]:
    with open_maps(state) as maps:
        known = maps.peers()
        return sorted(str(end) for peer in known.values() for end in (peer.address, peer.cidr))


def _of_pods(state: Path) -> list[str]:
    with open_maps(state) as maps:
        return sorted(map(str, maps.pods()))


def _read(what: Callable[[Path], list[str]]) -> list[str]:
    with contextlib.suppress(VxlaneError, OSError):
        return what(state_directory())
    return []


def _beginning(words: Iterable[str], begun: str) -> list[str]:
    return [word for word in words if word.startswith(begun)]
