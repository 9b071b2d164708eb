# SPDX-License-Identifier: Apache-2.0
"""A page as headless Chromium has it, once everything in it has run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--window-size=1000,1400",
)
_SECONDS = 60.0
_ELSEWHERE = re.compile(r"""(?:src|href|srcset|data)\s*=|url\(|@import|<script|//\w""")
"""What would have a browser ask for something that the file does not hold."""


def rendered(page: Path, scratch: Path) -> str:
    """The document of a page that needs nothing else, in the browser's words.

    The browser has no network. A page that asks for anything, or of which the browser complains,
    fails.
    """
    if not shutil.which("chromium"):
        pytest.skip("needs Chromium, which Debian has as a package; run scripts/setup --test")
    assert not _ELSEWHERE.search(page.read_text(encoding="utf-8"))
    profile = f"--user-data-dir={scratch / 'chromium'}"
    command = ["chromium", *_ARGUMENTS, profile, "--dump-dom", page.absolute().as_uri()]
    done = subprocess.run(
        ["unshare", "--net", *command],
        check=True,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout
