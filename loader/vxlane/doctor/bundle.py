# SPDX-License-Identifier: Apache-2.0
"""One archive of what a bug report needs: what the node says of itself, and what its tools say.

Every text goes through `without_secrets`. Environments, key files and configuration of the
cluster are not read at all.
"""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from itertools import islice
from pathlib import Path

from vxlane.doctor.findings import Json
from vxlane.doctor.secrets import without_secrets
from vxlane.errors import VxlaneError
from vxlane.pods.names import read_pod_names
from vxlane.show import node
from vxlane.util import files

_SECONDS = 10.0
_MOST = 2_000_000
"""Bytes of one log, its end."""
_FLOWS = 2000
_FOLDER = "vxlane-doctor"
_MODE = 0o600

_COMMANDS = {
    "links": "ip -d -s link show",
    "addresses": "ip address show",
    "routes": "ip route show table all",
    "routing-rules": "ip rule show",
    "neighbours": "ip -s neigh show",
    "ipsec-policies": "ip xfrm policy",
    "fdb": "bridge -s fdb show",
    "bridge-ports": "bridge -d link show",
    "qdiscs": "tc -s qdisc show",
    "nft": "nft -a list ruleset",
    "iptables": "iptables-save -c",
    "iptables-legacy": "iptables-legacy-save -c",
    "ipsets": "ipset list -terse",
    "conntrack": "conntrack -S",
    "counters": "nstat -az",
    "sockets": "ss -lunt",
    "sysctls": r"sysctl -a -r ^net\.(bridge|core|ipv4|netfilter)\.",
    "programs": "bpftool prog show",
    "maps": "bpftool map show",
    "attached": "bpftool net show",
    "journal": "journalctl -u vxlane -n 5000 --no-pager",
}
"""File -> the command whose output it holds."""

_VERSIONS = ("ip -V", "nft --version", "iptables --version", "bpftool version", "conntrack -V")


def write(path: Path, state: Path, examined: Json) -> None:
    """Write the archive to `path`, for its owner alone to read. OSError: it is as it was."""
    members = dict(_members(state, examined))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in members.items():
            octets = without_secrets(text).encode(errors="backslashreplace")
            member = tarfile.TarInfo(f"{_FOLDER}/{name}")
            member.size, member.mode = len(octets), _MODE
            archive.addfile(member, io.BytesIO(octets))
    files.replace(path, packed.getvalue(), mode=_MODE)


def _members(state: Path, examined: Json) -> Iterator[tuple[str, str]]:
    """Names and texts."""
    yield "doctor.json", _as_json(examined)
    for name, document in _documents(state).items():
        yield f"{name}.json", _as_json(document)
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(_output, _COMMANDS.values())
        yield from ((f"{name}.txt", text) for name, text in zip(_COMMANDS, said, strict=True))
        yield "versions.txt", "".join((_own_versions(), *pool.map(_output, _VERSIONS)))
    for file in sorted((*state.glob("*.log"), *state.glob("*.json"))):
        yield f"state/{file.name}", _end_of(file)


def _documents(state: Path) -> Json:
    """What `vxlane status`, `peers`, `pods`, `flows` and `stats` print with --json."""
    documents: Json = {"status": node.status(state)}
    names = read_pod_names(state)
    try:
        with node.open_maps(state) as maps:
            documents["peers"], documents["pods"] = node.peers(maps), node.pods(maps, names)
            documents["stats"] = node.stats(maps)
            documents["flows"] = list(islice(node.flows(maps, names), _FLOWS))
    except VxlaneError as error:
        documents["maps"] = {"error": str(error)}
    return documents


def _as_json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


def _output(command: str) -> str:
    """The command, and what it said."""
    try:
        done = subprocess.run(
            command.split(), check=False, capture_output=True, timeout=_SECONDS, text=True,
            errors="backslashreplace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = done.stdout + done.stderr
    except FileNotFoundError:
        said = "it is not installed\n"
    except subprocess.TimeoutExpired:
        said = f"it did not end within {_SECONDS:g} s\n"
    return f"$ {command}\n{said}"


def _own_versions() -> str:
    found = {
        "vxlane": metadata.version("vxlane"),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "distribution": _distribution(),
    }
    return "".join(f"{name} {version}\n" for name, version in found.items())


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "not known")
    except OSError:
        return "not known"


def _end_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - _MOST))
            return opened.read().decode(errors="backslashreplace")
    except OSError as error:
        return f"it can't be read: {error.strerror}\n"
