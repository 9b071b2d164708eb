# SPDX-License-Identifier: Apache-2.0
"""Ends on hosts, reached by the system's ssh with the keys of whoever runs it.

One program is copied there, talk, into a directory of its own. A shell there holds the directory
for as long as its connection lasts, and removes it after that: also if this process is killed.
Servers are held in the same way.
"""

from __future__ import annotations

import contextlib
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vxlane.bench.snmp import datagrams_in
from vxlane.errors import LabError, OptionError, ToolError
from vxlane.lab.traffic import is_listening
from vxlane.lab.waiting import wait_for

PREFIX = "ssh:"
NEEDED, WANTED = ("ping", "ip"), ("iperf3",)
_OPTIONS = {
    "BatchMode": "yes",  # no question that nobody sees
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ControlMaster": "auto",  # a connection for all commands: the first one's
    "ControlPersist": "no",
}
_LOST = 255
"""The status of ssh itself; any other is the command's."""
_SECONDS = 10.0
_HOLD = """\
tools=$(for tool in %s; do command -v $tool >/dev/null && echo $tool; done)
echo $(uname -m) $(uname -r) $tools
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM PIPE
head -c "$1" >"$directory/talk"; chmod 755 "$directory/talk"
"$directory/talk" 2>&1 | grep -q serve && echo "$directory" && cat >/dev/null
"""
"""Waits for `size` bytes of the program, and then for the end of the connection."""
_SERVE = '"$@" </dev/null >/dev/null 2>&1 & cat >/dev/null; kill -9 $!'


@dataclass(frozen=True, slots=True)
class Host:
    """A host that is reached, with talk on it."""

    name: str
    """ssh:[USER@]HOST."""
    options: tuple[str, ...]
    directory: str = ""
    """Where talk is."""
    kernel: str = ""
    tools: tuple[str, ...] = ()
    """Which of NEEDED and WANTED it has."""

    @property
    def machine(self) -> str:
        """Itself."""
        return self.name

    def inside(self, argv: Sequence[str]) -> list[str]:
        """By ssh."""
        destination = self.name.removeprefix(PREFIX)
        return ["ssh", *self.options, "--", destination, shlex.join(argv)]

    def run(
        self, *argv: str, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. ToolError: the host is out of reach."""
        command = self.inside(argv)
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: {argv[0]}: no end after {timeout:g} s") from None
        if done.returncode == _LOST:
            raise _out_of_reach(self.name, done.stderr)
        if check and done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it gave no reason")[-400:]
            raise LabError(f"{self.name}: {argv[0]}: status {done.returncode}: {said}")
        return done

    @contextlib.contextmanager
    def serving(self, port: int, argv: Sequence[str]) -> Iterator[None]:
        """Run a server during the block, which begins when it listens."""
        with _held(self.inside(["sh", "-c", _SERVE, "sh", *argv])):
            wait_for(lambda: self._listens(port), f"{argv[0]} on {self.name}", seconds=_SECONDS)
            yield

    def _listens(self, port: int) -> bool:
        tables = [f"/proc/net/{table}" for table in ("tcp", "tcp6", "udp", "udp6")]
        return is_listening(self.run("cat", *tables, check=False).stdout, port)

    def read(self, file: str) -> str:
        """The text of a file."""
        return self.run("cat", file).stdout

    def arrived(self) -> int:
        """Datagrams that have reached its sockets: its interface has other packets too."""
        return datagrams_in(self.read("/proc/net/snmp"))

    def program(self, local: Path) -> str:
        """Its copy."""
        return f"{self.directory}/{local.name}"


@contextlib.contextmanager
def reached(name: str, talk: Path, scratch: Path) -> Iterator[Host]:
    """Have talk on the host `name` within the block; `scratch` is for ssh's own socket.

    OptionError: that is no name of a host. ToolError: it can't be reached, or lacks something.
    """
    if not re.fullmatch(r"[^\s,-][^\s,]*", name.removeprefix(PREFIX)):
        raise OptionError(f'"{name}" names no host; give ssh:HOST or ssh:USER@HOST')
    if not shutil.which("ssh"):
        raise ToolError("ends on hosts are reached by ssh, and it is not installed here")
    settings = {**_OPTIONS, "ControlPath": str(scratch / "%C")}
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    host = Host(name, tuple(options))
    script = _HOLD % " ".join((*NEEDED, *WANTED))
    content = talk.read_bytes()
    with _held(host.inside(["sh", "-c", script, "sh", str(len(content))])) as shell:
        kernel, *tools = _checked(name, _line(name, shell).split())
        assert shell.stdin
        with contextlib.suppress(BrokenPipeError):
            shell.stdin.write(content)
            shell.stdin.flush()
        directory = _line(name, shell)
        yield Host(name, host.options, directory, kernel, tuple(tools))


def _checked(name: str, said: Sequence[str]) -> list[str]:
    """Kernel and tools of a host, after its architecture. ToolError: talk or ping can't run."""
    architecture, kernel, *tools = said
    if architecture != platform.machine():
        raise ToolError(
            f"{name} is {architecture} and this machine {platform.machine()}, so the traffic"
            " program made here does not run there; run the bench on a machine of its kind"
        )
    if lacks := [tool for tool in NEEDED if tool not in tools]:
        raise ToolError(f"{name} has no {' and no '.join(lacks)}; install it there")
    return [kernel, *tools]


def _line(name: str, shell: subprocess.Popen[bytes]) -> str:
    """The next line that the shell says. ToolError: it ended instead."""
    assert shell.stdout
    assert shell.stderr
    if line := shell.stdout.readline().decode().strip():
        return line
    said = shell.stderr.read().decode(errors="replace")
    if shell.wait() == _LOST:
        raise _out_of_reach(name, said)
    why = (said.strip().splitlines() or ["it does not run in its directory for temporary files"])[
        -1
    ]
    raise ToolError(f"the traffic program can't be put on {name}: {why}")


def _out_of_reach(name: str, said: str) -> ToolError:
    why = (said.strip().splitlines() or ["ssh gave no reason"])[-1]
    return ToolError(f"{name} can't be reached: {why}; try: ssh {name.removeprefix(PREFIX)} true")


@contextlib.contextmanager
def _held(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A shell there that goes on until its input ends, which is after the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as shell:
        try:
            yield shell
        finally:
            assert shell.stdin
            with contextlib.suppress(BrokenPipeError):
                shell.stdin.close()
            try:
                shell.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                shell.kill()
