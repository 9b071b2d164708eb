"""Which ports of bridges nftables checks by name: the bridge plugin's macspoofchk, or the like."""

from __future__ import annotations

import re

from vxlane.loader.errors import ToolError
from vxlane.loader.kernel.firewall import run

_MATCH = re.compile(r"[io]if(?:name)? (?:== )?(\{[^}]*\}|\"[^\"]*\")")
_NAME = re.compile(r"\"([^\"]+)\"")


def checked_ports() -> frozenset[str]:
    """Names of the devices that some rule of a bridge table matches on.

    A packet that is bypassed does not meet those rules, whatever they check. Without nft there
    are none: the plugin itself writes them with it.
    """
    try:
        ruleset = run("nft", "--stateless", "list", "ruleset", "bridge")
    except ToolError:
        return frozenset()
    return frozenset(name for match in _MATCH.findall(ruleset) for name in _NAME.findall(match))
