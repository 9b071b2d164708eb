# SPDX-License-Identifier: Apache-2.0
"""A node's CNI directories, in a directory of a test's own."""

import json
import subprocess
from pathlib import Path

from vxlane.lab.agents import program

FLANNEL = {
    "cniVersion": "0.3.1",
    "name": "cbr0",
    "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Place:
    """A node's CNI directories."""

    def __init__(self, directory: Path, root: Path = Path("/")) -> None:
        self.root = root
        self.bin = directory / "bin"
        self.conf = directory / "net.d"
        self.cache = directory / "cache"

    def vxlane(self, command, *options):
        """Run the command line on these directories."""
        places = ["--cni-bin-dir", self.bin, "--cni-conf-dir", self.conf, "--host-root", self.root]
        if command == "uninstall":
            places += ["--cni-cache-dir", self.cache]
        return self.run(command, *places, *options)

    def run(self, *arguments):
        """Run the command line with these arguments alone."""
        argv = [program("vxlane"), *arguments]
        return subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)

    def flannel(self, **keys):
        """Write flannel's list, as its init container does."""
        self.conf.mkdir(exist_ok=True)
        file = self.conf / "10-flannel.conflist"
        file.write_text(json.dumps({**FLANNEL, **keys}), encoding="utf-8")
        return file

    def files(self):
        """Every file there is, by its path, but the note of what was installed."""
        return sorted(
            str(file.relative_to(self.bin.parent))
            for directory in (self.bin, self.conf)
            for file in directory.rglob("*")
            if file.is_file() and file.name != ".vxlane.installed"
        )

    def listed(self, name="00-vxlane.conflist"):
        """What a file of the configuration directory says."""
        return json.loads((self.conf / name).read_text(encoding="utf-8"))


def is_kept_waiting(process):
    """Whether it waits for a lock (proc_locks(5)). AssertionError: it has ended."""
    assert process.poll() is None
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(words[1] == "->" and words[5] == str(process.pid) for words in waiting)
