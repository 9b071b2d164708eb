# SPDX-License-Identifier: Apache-2.0
"""Network namespaces: make, enter, empty and remove them.

Every process of a lab lives in one of its namespaces. So the kernel tells the processes of a lab,
and no list of pids is kept, which other processes may have by now. A command gets the namespace's
network only. `ip netns exec` would also give it a /sys of its own, without the agent's bpffs and
the cgroups. Imports errors and netns only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from vxlane.errors import LabError
from vxlane.runtime.netns import DIRECTORY, inside, path

__all__ = [
    "DIRECTORY",
    "create",
    "existing",
    "inside",
    "path",
    "pids",
    "remove",
    "run",
    "start",
]

Identity = tuple[int, int]
"""Device and inode of a namespace's file."""

_EMPTY_SECONDS = 10.0


def existing() -> list[str]:
    """The names of all namespaces on this machine."""
    return sorted(file.name for file in DIRECTORY.iterdir()) if DIRECTORY.is_dir() else []


def create(namespace: str) -> None:
    """Make `namespace`, with its loopback up."""
    run(None, "ip", "netns", "add", namespace)
    run(None, "ip", "-n", namespace, "link", "set", "lo", "up")


def remove(namespaces: Sequence[str]) -> None:
    """Kill the processes in `namespaces` and delete these; their devices go with them.

    A process may enter meanwhile. So processes are killed once more when the names are gone, after
    which no process can enter. LabError: one is the machine's network, or this process's; then none
    is touched.
    """
    with contextlib.ExitStack() as stack:
        networks = set()
        for name in namespaces:
            # Held open, so that no new namespace takes over its identity.
            held = stack.enter_context(path(name).open("rb"))
            network = _identity(os.fstat(held.fileno()))
            # 'ip netns attach' gives any network a name.
            if network in {_network(1), _network(os.getpid())}:
                raise LabError(
                    f'namespace "{name}" is the network of this command or of the machine; take'
                    f" the name away: ip netns del {name}"
                )
            networks.add(network)
        _empty(networks)
        for name in namespaces:
            run(None, "ip", "netns", "del", name)
        _empty(networks)


def run(
    namespace: str | None,
    *argv: str,
    check: bool = True,
    timeout: float = 60.0,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return it with its output.

    `env` is added to this process's. Unless `check` is off, a status other than 0 is a LabError
    with the command's output. Inheritable descriptors are inherited, so a lock is held until the
    last command under it ends, even if this process is killed.
    """
    try:
        done = subprocess.run(
            inside(namespace, argv),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            env={**os.environ, **(env or {})},
            close_fds=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{_shown(namespace, argv)}: no end after {timeout:g} s") from None
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed; run scripts/setup") from None
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it gave no reason")[-800:]
        raise LabError(f"{_shown(namespace, argv)}: status {done.returncode}: {said}")
    return done


def _shown(namespace: str | None, argv: Sequence[str]) -> str:
    return f"{namespace}: {' '.join(argv)}" if namespace else " ".join(argv)


def start(namespace: str, *argv: str, log: Path, env: Mapping[str, str]) -> None:
    """Start a process in a session of its own, with its output appended to `log`, and with `env`.

    It outlives this process, and a Ctrl-C reaches only one of them.
    """
    command = inside(namespace, ["setsid", "--fork", *argv])
    with log.open("ab") as output:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
        )


def pids(*namespaces: str) -> list[int]:
    """The processes in the network of one of `namespaces`, without this one."""
    return _pids({_identity(path(name).stat()) for name in namespaces})


def _pids(networks: AbstractSet[Identity]) -> list[int]:
    return [pid for pid in _all_pids() if pid != os.getpid() and _network(pid) in networks]


def _empty(networks: AbstractSet[Identity]) -> None:
    """Kill every process in `networks`, and return when all are gone."""
    deadline = time.monotonic() + _EMPTY_SECONDS
    while left := _pids(networks):
        for pid in left:
            _kill(pid, networks)
        if time.monotonic() > deadline:
            raise LabError(f"processes {left} do not end; see them with ps")


def _kill(pid: int, networks: AbstractSet[Identity]) -> None:
    """Kill `pid` if it is a process of `networks`, and wait for its end.

    The signal goes to a pidfd: the number may be another process's by then.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _network(pid) in networks:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], 1.0)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)


def _network(pid: int) -> Identity | None:
    try:
        return _identity(Path(f"/proc/{pid}/ns/net").stat())
    except OSError:  # it ended, or has no network any more (zombie)
        return None


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
