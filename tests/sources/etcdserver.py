# SPDX-License-Identifier: Apache-2.0
"""A real etcd with a port and a directory of its own, and etcdctl to talk to it."""

import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from vxlane.lab import namespaces


class EtcdServer:
    """One member, at `host` of the namespace `netns`. `down` and `up` keep port and data."""

    def __init__(
        self,
        directory: Path,
        pki: SimpleNamespace | None = None,
        *,
        options: Sequence[str] = (),
        netns: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._options = options
        self._netns = netns
        self._host = host
        self._directory = directory
        self._pki = pki
        self._port, self._peer_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http{'s' if self._pki else ''}://{self._host}:{self._port}"

    def up(self) -> "EtcdServer":
        """Start it if it is down, and wait until it answers."""
        if self._process is not None:
            return self
        peer = f"http://127.0.0.1:{self._peer_port}"
        # No etcd outlives a killed test run.
        command = ["setpriv", "--pdeathsig", "KILL", "etcd"]
        command += ["--data-dir", str(self._directory / "data")]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", f"default={peer}"]
        # Elections of a lone member are quick, and short leases possible.
        command += ["--heartbeat-interval", "10", "--election-timeout", "100", *self._options]
        if self._pki:
            command += ["--cert-file", str(self._pki.server_crt), "--client-cert-auth"]
            command += ["--key-file", str(self._pki.server_key)]
            command += ["--trusted-ca-file", str(self._pki.ca_crt)]
        with (self._directory / "log").open("ab") as log:
            inside = namespaces.inside(self._netns, command)
            self._process = subprocess.Popen(inside, stdout=log, stderr=log)
        end = time.monotonic() + 15
        while self._ctl("endpoint", "health", "--command-timeout", "1s").returncode:
            assert time.monotonic() < end, (self._directory / "log").read_text()[-2000:]
            time.sleep(0.05)
        return self

    def close(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ctl(self, *arguments: str) -> str:
        """What etcdctl answers."""
        answer = self._ctl(*arguments)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def _ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["etcdctl", "--endpoints", self.url]
        if self._pki:
            command += ["--cacert", str(self._pki.ca_crt), "--cert", str(self._pki.client_crt)]
            command += ["--key", str(self._pki.client_key)]
        environ = {**os.environ, "ETCDCTL_API": "3"}
        return subprocess.run(
            namespaces.inside(self._netns, [*command, *arguments]),
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
