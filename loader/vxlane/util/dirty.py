# SPDX-License-Identifier: Apache-2.0
"""The parts of the state that may have changed and are to be compared again. Pure."""

from __future__ import annotations

import enum


class Dirty(enum.Flag):
    """Parts that may have changed."""

    NODES = enum.auto()
    HOST = enum.auto()
    """Interfaces and addresses; our device."""
    ROUTES = enum.auto()
    """Next hops may have changed."""
    ENTRIES = enum.auto()
    """Our routes, neighbours or FDB entries."""
    RULES = enum.auto()
    """Masquerade and forward rules."""
    PODS = enum.auto()
    """Some veths and bridges, their qdiscs and filters."""
    MAPS = enum.auto()
    """The programs' maps, and the places of the programs."""

    @property
    def label(self) -> str:
        """The part's name, `several` or `all`."""
        parts = [str(part.name).lower() for part in Dirty if part in self]
        if self == ALL:
            return "all"
        return parts[0] if len(parts) == 1 else "several"


ALL = Dirty(sum(item.value for item in Dirty))
