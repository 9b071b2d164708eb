# SPDX-License-Identifier: Apache-2.0
"""The bytes of a pcapng file, block by block, and the files that follow each other."""

from __future__ import annotations

import contextlib
import os
import resource
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from test_event import event

from vxlane.datapath.abi import Program, Verdict
from vxlane.errors import ConfigError, VxlaneError
from vxlane.trace import pcapng
from vxlane.trace.capture_file import CaptureFile, Rotation

HEAD = pcapng.head("node1", {IPv4Address("10.42.1.5"): "default/web"}, 256)


def blocks(data: bytes) -> list[tuple[int, bytes]]:
    """Type and body of each block; every length is there twice and fits."""
    found = []
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert struct.unpack_from("=I", data, length - 4) == (length,)
        found.append((kind, data[8 : length - 4]))
        data = data[length:]
    return found


def test_head() -> None:
    """A section, an interface for each program in nanoseconds, and the names."""
    (section, _), *interfaces, (names, resolution) = blocks(HEAD)
    assert (section, names) == (0x0A0D0D0A, 4)
    assert [kind for kind, _ in interfaces] == [1] * len(Program)
    for program, (_, body) in zip(Program, interfaces, strict=True):
        assert body[:8] == struct.pack("=HHI", 1, 0, 256)
        assert program.label.encode() in body
        assert b"node1: what " in body
        assert struct.pack("=HHB", 9, 1, 9) in body
    name = b"\x0a\x2a\x01\x05default/web\0"
    assert resolution == struct.pack("=HH", 1, len(name)) + name + bytes(4)


@pytest.mark.parametrize(("outer", "length"), [(False, 84), (True, 134)])
def test_packet(outer: bool, length: int) -> None:  # noqa: FBT001 (a row of a table)
    """A packet's interface, time, lengths, bytes and comment."""
    made = event(
        data=b"frame",
        time=1 << 32,
        program=Program.TO_NIC,
        verdict=Verdict.LEARNED,
        gso_size=9,
        gso_segments=10,
    )
    ((kind, body),) = blocks(pcapng.packet(made, 7, outer=outer))
    assert kind == 6
    assert struct.unpack_from("=5I", body) == (Program.TO_NIC, 1, 7, 5, length)
    assert body[20:28] == b"frame\0\0\0"
    comment = b"learned: came out of the kernel path: its half of the flow is approved"
    assert comment + b" (super-packet: 10 segments of 9 bytes)" in body


@pytest.mark.parametrize(
    ("tunnel", "outer", "captured", "expected"),
    [
        (0, False, 20, b"d" * 6 + b"s" * 6 + b"\x81\0\xa0\x05" + b"p" * 8),
        (0, False, 16, b"d" * 6 + b"s" * 6 + b"\x81\0\xa0\x05"),
        (50, True, 16, b"d" * 6 + b"s" * 6 + b"\x81\0\xa0\x05"),
        (50, False, 16, b"d" * 6 + b"s" * 6 + b"p" * 4),
    ],
)
def test_tag(*, tunnel: int, outer: bool, captured: int, expected: bytes) -> None:
    """A VLAN tag that the kernel keeps beside the outermost frame is in that of the file, which is
    no longer than was asked for.
    """
    data = (b"d" * 6 + b"s" * 6 + b"p" * 8)[:captured]
    made = event(data=data, length=20, tunnel=tunnel, tag_protocol=0x8100, tag_control=0xA005)
    ((_, body),) = blocks(pcapng.packet(made, 7, outer=outer))
    length = 20 + tunnel * outer + 4 * (expected[12:13] == b"\x81")
    assert struct.unpack_from("=2I", body, 12) == (len(expected), length)
    assert body[20:].startswith(expected)


def test_tail() -> None:
    """How many packets were lost stands at the end."""
    ((kind, body),) = blocks(pcapng.tail(1234, 0))
    assert kind == 5
    assert struct.pack("=HHQ", 5, 8, 1234) in body


def capture_file(path: Path, rotation: Rotation | None) -> CaptureFile:
    """A file whose begin and end can be seen."""
    return CaptureFile(str(path), rotation, head=lambda: b"<", tail=lambda: b">")


def test_rotation(tmp_path: Path) -> None:
    """A full file goes one number up, as many as are kept stay, and each is whole."""
    path = tmp_path / "x.pcapng"
    file = capture_file(path, Rotation(size=4, keep=3))
    for packet in (b"aa", b"bb", b"cc", b"ddddd", b"e", b"ff", b"ggg"):
        file.write(packet)
    file.close()
    names = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert names == {"x.pcapng": b"<ggg>", "x.pcapng.1": b"<eff>", "x.pcapng.2": b"<ddddd>"}


def test_one_is_kept(tmp_path: Path) -> None:
    """Where one file is kept it begins anew."""
    file = capture_file(tmp_path / "x", Rotation(size=1, keep=1))
    for packet in (b"a", b"b"):
        file.write(packet)
    file.close()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("x", b"<b>")]


def test_an_earlier_capture(tmp_path: Path) -> None:
    """No file of it stays beside those of a new one, whose packets they are not."""
    path = tmp_path / "x"
    for packets, kept in ((b"abcdef", 5), (b"gh", 3)):
        file = capture_file(path, Rotation(size=1, keep=kept))
        for packet in packets:
            file.write(bytes([packet]))
        file.close()
    names = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert names == {"x": b"<h>", "x.1": b"<g>"}


def test_what_keeps_its_number(tmp_path: Path) -> None:
    """Without --rotate, or where FILE is refused, no other file is touched."""
    path, numbered = tmp_path / "x", tmp_path / "x.1"
    numbered.write_text("kept")
    capture_file(path, None).close()
    path.unlink()
    path.symlink_to(tmp_path / "file")
    with pytest.raises(ConfigError, match="it is a link"):
        capture_file(path, Rotation(size=1, keep=3))
    assert numbered.read_text() == "kept"


def test_no_file_is_without_a_packet(tmp_path: Path) -> None:
    """A packet that is longer than a file may be is in one by itself, the first one too."""
    file = capture_file(tmp_path / "x", Rotation(size=1, keep=3))
    for packet in (b"aaa", b"b"):
        file.write(packet)
    file.close()
    names = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert names == {"x": b"<b>", "x.1": b"<aaa>"}


def test_a_capture_is_its_owners(tmp_path: Path) -> None:
    """A new file may be read by its owner alone."""
    capture_file(tmp_path / "x", None).close()
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_becomes_private(tmp_path: Path) -> None:
    """Nobody else reads what is captured into a file that everybody could read."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    capture_file(path, None).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.read_bytes().startswith(b"old")


def test_refusals(tmp_path: Path) -> None:
    """A file that can't be made, a second standard output and a full disk each have a sentence."""
    with pytest.raises(ConfigError, match=r"-w .*/none/x: No such file or directory"):
        capture_file(tmp_path / "none" / "x", None)
    with pytest.raises(ConfigError, match="standard output has no second one"):
        capture_file(Path("-"), Rotation(1, 1))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=r"--rotate needs a plain file, and .*pipe is none"):
        capture_file(tmp_path / "pipe", Rotation(1, 1))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"-w .*/link: it is a link, as a shell's >\(...\) is;"):
        capture_file(tmp_path / "link", None)
    with pytest.raises(VxlaneError, match="write /dev/full: No space left on device"):
        capture_file(Path("/dev/full"), None)


def test_another_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is refused since it is another user's keeps what it holds."""
    path = tmp_path / "file"
    path.write_text("theirs")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="it is another user's; name another file"):
        capture_file(path, None)
    assert path.read_text() == "theirs"


def test_another_users_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reads what is captured because a pipe of theirs has the file's name."""
    os.mkfifo(tmp_path / "x")
    reading = os.open(tmp_path / "x", os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(os, "geteuid", lambda: os.fstat(reading).st_uid + 1)
    with pytest.raises(ConfigError, match="it is another user's; name another file"):
        capture_file(tmp_path / "x", None)
    assert os.read(reading, 1) == b""
    os.close(reading)


@contextlib.contextmanager
def room_of(size: int) -> Iterator[None]:
    """No file has room for more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("room", "content"), [(3, b"<aa"), (4, b"<aa"), (8, b"<aabbb"), (10, b"<aabbbcccc")]
)
def test_without_room(tmp_path: Path, room: int, content: bytes) -> None:
    """A file that finds no room ends with the last packet that did, and these are counted."""
    path, packets = tmp_path / "x", (b"aa", b"bbb", b"cccc")
    file = capture_file(path, None)
    for packet in packets:
        file.write(packet)
    with room_of(room), pytest.raises(VxlaneError, match=r"write .*/x: File too large"):
        file.close()
    assert path.read_bytes() == content
    assert b"<" + b"".join(packets[: file.packets]) == content


def test_without_room_for_a_head(tmp_path: Path) -> None:
    """A file that nothing could read, since it has not even its head, goes away."""
    with room_of(0), pytest.raises(VxlaneError, match=r"write .*/x: File too large"):
        capture_file(tmp_path / "x", None)
    assert not (tmp_path / "x").exists()


def test_a_next_file_that_cannot_be(tmp_path: Path) -> None:
    """What keeps a full file from its next number has a sentence, and the file stays whole."""
    path = tmp_path / "x"
    (tmp_path / "x.1").mkdir()
    file = capture_file(path, Rotation(size=4, keep=2))
    file.write(b"aaaa")
    with pytest.raises(VxlaneError, match=r"write .*/x: Is a directory"):
        file.write(b"b")
    assert (path.read_bytes(), file.packets) == (b"<aaaa>", 1)
