# SPDX-License-Identifier: Apache-2.0
"""Nodes that can't be used as they are; each is logged when it is new and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from vxlane.sources.model import Problem

log = logging.getLogger(__name__)


class Problems:
    """The problems of the last reconcile."""

    def __init__(self) -> None:
        self.current: tuple[Problem, ...] = ()

    def replace(self, problems: Iterable[Problem]) -> None:
        """These are all problems now."""
        before, self.current = self.current, tuple(dict.fromkeys(problems))
        for problem in set(self.current) - set(before):
            log.warning("node %s: %s", problem.node, problem.reason)
        for problem in set(before) - set(self.current):
            log.info("node %s: no longer so: %s", problem.node, problem.reason)
