# SPDX-License-Identifier: Apache-2.0
"""BootNode: a node with a root file system of its own, which boots, runs units and loses its power.

Its disk is an overlay over this machine's root, so that packages are installed as on any Debian. A
boot is a mount namespace with an empty /run, and a network namespace without a device. There is no
systemd: a service is started with what its unit file says, as far as `_CONFINE` knows it.
"""

from __future__ import annotations

import configparser
import os
import select
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import standing

from vxlane.lab import namespaces
from vxlane.lab.plan import LABS
from vxlane.show.node import call

RUN = f"vxtest-{os.getpid()}-boot"
ROOT = Path(__file__).parents[2]

_DISK = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount --rbind /dev "$1/root/dev"
rm -rf "$1/root/var/lib/cni" "$1/root/etc/cni" "$1/root/opt/cni"
"""
_BOOT = """
mount -t proc proc "$1/root/proc"
mount -t sysfs sysfs "$1/root/sys"
mount -t tmpfs -o mode=755 tmpfs "$1/root/run"
sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
ip link set lo up
"""
"""Without IPv6, whose addresses of devices are tentative for a second or two."""
_STAY = "\necho up; exec sleep infinity\n"
_CONFINE = """
cd "$1/root"
for directory in usr boot; do
    mount --bind $directory $directory
    mount -o remount,bind,ro $directory
done
mount -t tmpfs -o mode=0 tmpfs home
mount -t tmpfs -o mode=0 tmpfs root
mount -t tmpfs tmpfs tmp
root=$1; shift
exec chroot "$root/root" "$@"
"""
"""ProtectSystem=yes, ProtectHome and PrivateTmp of a unit."""
_FAMILIES = """
import ctypes, os, platform, socket, struct, sys
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
families = [getattr(socket, name) for name in sys.argv[1].split()]
rest = len(families)
code = [(0x20, 0, 0, 0), (0x15, 0, rest + 2, number), (0x20, 0, 0, 16)]
code += [(0x15, rest - i, 0, family) for i, family in enumerate(families)]
code += [(0x06, 0, 0, 0x00050000 | 97), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in code))
program = struct.pack("=HxxxxxxQ", len(code), ctypes.addressof(filters))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""RestrictAddressFamilies of a unit: socket(2) of another family is EAFNOSUPPORT."""


class BootNode:
    """Node `node1` of the lab's addresses, on a wire to nobody. `directory` is on this machine."""

    def __init__(self) -> None:
        self.netns = RUN
        self.directory = LABS / RUN
        self.directory.mkdir(parents=True)
        self.agent: subprocess.Popen[bytes] | None = None
        self._disk = self._hold(["unshare", "--mount"], _DISK)
        self._up: subprocess.Popen[str] | None = None

    def boot(self) -> None:
        """Devices, /run and mounts as after a boot."""
        namespaces.create(self.netns)
        enter = ["nsenter", "--mount", f"--target={self._disk.pid}"]
        # Entered first: the name of a network namespace is a mount of this machine's.
        inside = namespaces.inside(self.netns, enter)
        self._up = self._hold([*inside, "unshare", "--mount", "--propagation", "slave"], _BOOT)
        self.sh(
            "ip link add eth0 type veth peer name wire0",
            "ip addr add 192.168.77.1/24 dev eth0",
            "ip link set eth0 up; ip link set wire0 up",
        )

    def lose_power(self) -> None:
        """All processes, devices and mounts end at once. The disk stays."""
        for process in filter(None, (self.agent, self._up)):
            process.kill()
            process.wait()
        self.agent = self._up = None
        namespaces.remove([self.netns])

    def remove(self) -> None:
        """Take all of it away."""
        self.lose_power()
        self._disk.kill()
        self._disk.wait()
        self.directory.rmdir()

    def sh(self, *lines: str) -> str:
        """Run shell lines on the node; their output."""
        return self.run("sh", "-ec", "\n".join(lines))

    def run(self, *argv: str) -> str:
        """Run a command on the node; its output. AssertionError: it failed."""
        command = [*self._inside(), "chroot", str(self.root), *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def root(self) -> Path:
        """The node's root directory, as its processes outside of it see it."""
        return self.directory / "root"

    def seen(self, path: str) -> Path:
        """A path of the node, as this process sees it."""
        assert self._up
        return Path(f"/proc/{self._up.pid}/root{self.root}{path}")

    def upper(self) -> Path:
        """What was changed on the disk, as this process sees it."""
        return Path(f"/proc/{self._disk.pid}/root{self.directory}/upper")

    def mount(self, unit: str) -> None:
        """Do what a mount unit says."""
        said = self._unit(unit)["Mount"]
        self.sh(
            f"mkdir -p -m {said['DirectoryMode']} {said['Where']}",
            f"mount -t {said['Type']} -o {said['Options']} {said['What']} {said['Where']}",
        )

    def start(self, unit: str) -> None:
        """Start a service, and wait until it says that it is ready."""
        service = self._unit(unit)["Service"]
        variables = _variables(self.seen(service["EnvironmentFile"].lstrip("-")).read_text())
        words = service["ExecStart"].replace("$VXLANE_OPTIONS", variables["VXLANE_OPTIONS"])
        kept = ",".join(
            f"+{name.removeprefix('CAP_').lower()}"
            for name in service["CapabilityBoundingSet"].split()
        )
        caps = ["--bounding-set", f"-all,{kept}", "--inh-caps", f"-all,{kept}", "--no-new-privs"]
        seccomp = ["/usr/bin/python3", "-c", _FAMILIES, service["RestrictAddressFamilies"]]
        confine = ["unshare", "--mount", "--propagation", "slave", "sh", "-ec", _CONFINE, "sh"]
        command = [*self._inside(), *confine, str(self.directory), *seccomp, "setpriv", *caps]
        self.seen("/run/systemd").mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, self._log() as log:
            notify.bind(str(self.seen("/run/systemd/notify")))
            env = {**os.environ, **variables, "NOTIFY_SOCKET": "/run/systemd/notify"}
            self.agent = subprocess.Popen(
                [*command, *shlex.split(words)], stdout=log, stderr=log, env=env
            )
            said = b""
            while b"READY=1" not in said:
                assert _readable(notify), self.log()
                said = notify.recv(4096)
        self.seen("/run/systemd/notify").unlink()
        self.seen("/run/systemd").rmdir()
        assert self.agent.poll() is None, self.log()

    def stop(self) -> None:
        """Stop the service."""
        assert self.agent
        self.agent.terminate()
        assert self.agent.wait(timeout=10) == 0, self.log()
        self.agent = None

    def ask(self, **request: Any) -> dict[str, Any]:
        """Put a request to the agent."""
        return call(self.seen("/run/vxlane"), request)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself."""
        status: dict[str, Any] = self.ask(op="status")["status"]
        return status

    def log(self) -> str:
        """What the agent has said."""
        return Path(f"/proc/{self._disk.pid}/root{self.directory}/log").read_text()

    def programs(self) -> set[Any]:
        """The programs on the node's devices, as the kernel has it."""
        return standing.programs(self.netns)

    def _log(self) -> Any:
        return Path(f"/proc/{self._disk.pid}/root{self.directory}/log").open("ab")

    def _unit(self, name: str) -> configparser.ConfigParser:
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(self.seen(f"/usr/lib/systemd/system/{name}").read_text())
        return unit

    def _inside(self) -> list[str]:
        assert self._up
        return ["nsenter", "--mount", "--net", f"--target={self._up.pid}"]

    def _hold(self, prefix: list[str], script: str) -> subprocess.Popen[str]:
        """A process that has done `script` and keeps what it did."""
        mortal = ["setpriv", "--pdeathsig", "KILL", *prefix]  # With a run that is killed.
        command = [*mortal, "sh", "-ec", script + _STAY, "sh", str(self.directory)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.stdout.close()
        return process


def build(directory: Path) -> Path:
    """The Debian package of this checkout, and of the environment that runs the tests."""
    command = [sys.executable, str(ROOT / "deploy/debian/package.py"), str(directory)]
    return Path(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    )


def _readable(notify: socket.socket) -> bool:
    return bool(select.select([notify], [], [], 30)[0])


def _variables(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: shlex.split(value)[0] for name, _, value in (x.partition("=") for x in lines)}
