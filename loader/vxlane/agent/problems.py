# SPDX-License-Identifier: Apache-2.0
"""Nodes that can't be used as they are; each is logged when it is new and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from vxlane.sources.model import Problem
from vxlane.util.log_lines import log_lines

log = logging.getLogger(__name__)


class Problems:
    """The problems of the last reconcile."""

    def __init__(self) -> None:
        self.current: tuple[Problem, ...] = ()

    def replace(self, problems: Iterable[Problem]) -> None:
        """These are all problems now."""
        before, now = dict.fromkeys(self.current), dict.fromkeys(problems)
        self.current = tuple(now)
        come = [f"node {it.node}: {it.reason}" for it in now if it not in before]
        log_lines(log, come, "problems of nodes", logging.WARNING)
        gone = [f"node {it.node}: no longer so: {it.reason}" for it in before if it not in now]
        log_lines(log, gone, "problems of nodes that are over")
