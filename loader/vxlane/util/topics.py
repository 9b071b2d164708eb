# SPDX-License-Identifier: Apache-2.0
"""The words for what may have changed and has to be looked at. Pure."""

from __future__ import annotations

import enum


class Topic(enum.Flag):
    """What may have changed."""

    NODES = enum.auto()
    HOST = enum.auto()
    """Interfaces and addresses; our device."""
    ROUTES = enum.auto()
    """Next hops may be others."""
    ENTRIES = enum.auto()
    """Our routes, neighbours or forwarding entries."""
    RULES = enum.auto()
    """Masquerade and forward rules."""
    PODS = enum.auto()
    """Some veths and bridges, their qdiscs and filters."""
    PORTS = enum.auto()
    """Rules about ports of bridges."""
    MAPS = enum.auto()
    """What the programs' maps hold and where programs stand."""


ALL = Topic(sum(topic.value for topic in Topic))
