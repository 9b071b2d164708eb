# SPDX-License-Identifier: Apache-2.0
"""What a node tells when its agent does not answer, or answers garbage."""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from vxlane.datapath.abi import HEADER
from vxlane.datapath.maps import Maps
from vxlane.datapath.records import Flow, Settings
from vxlane.errors import ContractError, KernelError, VxlaneError
from vxlane.pods.names import PodNames
from vxlane.show import node

Serve = Callable[[bytes | None], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Makes a state directory whose agent sends these bytes and hangs up, or (None) hangs."""
    listener = socket.socket(socket.AF_UNIX)
    done = threading.Event()

    def start(answer: bytes | None) -> Path:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen(1)

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return tmp_path

    yield start
    done.set()
    listener.close()


def test_an_agent_that_hangs_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that takes a request and never answers is a sentence, after ten seconds."""
    monkeypatch.setattr(node, "_ANSWER_SECONDS", 0.1)
    with pytest.raises(VxlaneError, match=r"did not answer within 0\.1 s; it is overloaded"):
        node.call(serve(None), {"op": "status"})


@pytest.mark.parametrize("answer", [b"", b'{"ok": tr', b"garbage\n"])
def test_an_answer_that_is_cut_is_told(serve: Serve, answer: bytes) -> None:
    """Half an answer, or none, says that the agent ended."""
    with pytest.raises(VxlaneError, match="ended before it answered; see its log"):
        node.call(serve(answer), {"op": "status"})


def test_a_refusal_has_the_agents_words(serve: Serve) -> None:
    """What the agent refuses is told with the request and its reason."""
    with pytest.raises(VxlaneError, match="the agent refused flush: no bypass now"):
        node.call(serve(b'{"ok": false, "error": "no bypass now"}\n'), {"op": "flush"})


def test_a_node_without_anything_says_so_in_both_parts(tmp_path: Path) -> None:
    """Status of a node without agent and programs has an error for each, and is no bypass."""
    document = node.status(tmp_path)
    assert document["agent"]["error"].startswith("no agent listens on")
    assert document["programs"]["bypassing"] is False
    assert document["programs"]["error"].startswith("no programs are pinned in")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"waiting_for": "etcd"}', b"[" * 100_000])
def test_a_status_file_of_no_living_agent_does_not_count(tmp_path: Path, content: bytes) -> None:
    """A status file counts only while an agent holds the state directory, whatever it says."""
    (tmp_path / "agent.json").write_bytes(content)
    assert node.status(tmp_path)["agent"]["error"].startswith("no agent listens on")


def test_missing_capabilities_are_told_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel refuses the maps to a process, it is told what that lacks."""

    def refuse(_: Path) -> Maps:
        raise KernelError("open pin peers", errno.EPERM)

    monkeypatch.setattr(node.Maps, "open", refuse)
    monkeypatch.setattr(node, "missing", lambda _: "CAP_SYS_ADMIN")
    with pytest.raises(VxlaneError, match=r"not permitted; this process lacks CAP_SYS_ADMIN$"):
        node.open_maps(tmp_path)
    monkeypatch.setattr(node, "missing", lambda _: "")
    with pytest.raises(KernelError, match=r"not permitted$"):
        node.open_maps(tmp_path)


@pytest.mark.parametrize(
    "error", [KernelError("open pin peers", errno.EPERM), ContractError("peers: other sizes")]
)
def test_programs_that_cannot_be_read_may_bypass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: VxlaneError
) -> None:
    """Whether they do is not known to a process that can't read their maps."""

    def refuse(_: Path) -> Maps:
        raise error

    monkeypatch.setattr(node.Maps, "open", refuse)
    programs = node.status(tmp_path)["programs"]
    assert programs["bypassing"] is None
    assert programs["error"].startswith(str(error))


def test_flows_that_are_learned_meanwhile() -> None:
    """A flow that is learned, in a new epoch, while the map is read is not of the future and not
    withdrawn.
    """
    settings = Settings.of(HEADER.structs["settings"]())
    record = Flow.of(HEADER.structs["flow_key"](protocol=6), HEADER.structs["flow"]())
    maps = Mock(spec=Maps)
    maps.settings.return_value = settings

    def learned() -> Iterator[Flow]:
        maps.settings.return_value = replace(settings, epoch=settings.epoch + 1)
        yield replace(record, seen_out=time.monotonic_ns(), epoch=settings.epoch + 1)

    maps.flows.side_effect = learned
    (flow,) = node.flows(maps, PodNames())
    assert flow["out_age_seconds"] >= 0
    assert not flow["withdrawn"]
