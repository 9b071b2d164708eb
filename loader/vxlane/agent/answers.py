# SPDX-License-Identifier: Apache-2.0
"""Answers that an agent needs to start: the network's configuration and this node's name.

They are kept on disk, so that an agent can be restarted while its source is down.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from vxlane.errors import SourceError
from vxlane.util import files
from vxlane.util.jsontext import parse_json

log = logging.getLogger(__name__)

FILE = "answers.json"


class Answers:
    """Owns `<state>/answers.json`. Answers from another `origin` (see `Config`) are ignored."""

    def __init__(self, state: Path, origin: str) -> None:
        self._path = state / FILE
        self._origin = origin

    def to(self, what: str, question: Callable[[], str]) -> str:
        """The answer to `question`. If it fails now, the answer that an earlier start was given.

        SourceError: it failed, and there is no earlier answer.
        """
        known = self._load()
        try:
            answer = question()
        except SourceError as error:
            if what not in known:
                raise
            log.warning("%s; the %s of the last start is used", error, what)
            return known[what]
        if known.get(what) != answer:
            document = {"source": self._origin} | known | {what: answer}
            with contextlib.suppress(OSError):  # On a full disk the next start has to ask again.
                files.replace(self._path, json.dumps(document))
        return answer

    def _load(self) -> dict[str, str]:
        try:
            document = parse_json(self._path.read_bytes())
            if document.pop("source") == self._origin:
                return {str(what): str(answer) for what, answer in document.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # It is missing or damaged; the next answer replaces it.
        return {}
