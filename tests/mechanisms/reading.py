# SPDX-License-Identifier: Apache-2.0
"""Rules in a namespace of a test's own, and what is found in them."""

from __future__ import annotations

import contextlib
import subprocess
from ipaddress import IPv4Address, IPv4Network

from vxlane.mechanisms.findings import findings, may_drop_established
from vxlane.mechanisms.legacy_reader import LegacyReader
from vxlane.mechanisms.nft_reader import NftReader
from vxlane.mechanisms.packet import View
from vxlane.mechanisms.untracked import hindrances

VIEW = View(
    network=IPv4Network("10.42.0.0/16"),
    local=IPv4Network("10.42.1.0/24"),
    bridges=frozenset({"cni0"}),
    overlay="flannel.1",
    nics=frozenset({"eth0"}),
    direct=frozenset(),
    address=IPv4Address("192.168.7.1"),
    peers=(IPv4Address("192.168.7.2"), IPv4Address("192.168.7.3")),
    port=8472,
)


def sh(*argv, stdin=""):
    """Run a command to its success."""
    done = subprocess.run(argv, input=stdin, text=True, capture_output=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)


def found(view=VIEW):
    """What is found in the rules of the namespace that the thread is in."""
    return _asked(findings, view)


def may_drop(view=VIEW):
    """Whether these rules may drop a packet of an established connection."""
    return _asked(may_drop_established, view)


def _asked(question, view):
    with contextlib.closing(NftReader()) as nft, contextlib.closing(LegacyReader()) as legacy:
        legacy.refresh()
        reader = {False: nft, True: legacy}
        bases = nft.bases() + legacy.bases()
        return question(bases, lambda key: reader[key.is_legacy].rules(key), view)


def hindering(view=VIEW):
    """Chains of nftables that may treat the tunnel's packets in another way when not tracked."""
    with contextlib.closing(NftReader()) as nft:
        return set(hindrances(nft.bases(), nft.rules, view))


def kinds(view=VIEW):
    """The names of the kinds that are found."""
    return {finding.kind.value for finding in found(view)}
