# SPDX-License-Identifier: Apache-2.0
"""Offsets out of BTF, from a blob that is written here as Linux writes it."""

import struct

import pytest

from vxlane.errors import ContractError
from vxlane.profile.btf import Btf

INT, ARRAY, STRUCT, UNION, ENUM = 1, 3, 4, 5, 6


class Blob:
    """Types in the order they are added; the first has number 1."""

    def __init__(self):
        self.strings, self.types, self.count = b"\0", b"", 0

    def name(self, text):
        """Where a name stands among the strings; of none: 0."""
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name, kind, members=(), trailer=b"", *, flag=0):
        """A type of any kind; its number. Members: (name, type, offset in bits)."""
        info = flag << 31 | kind << 24 | len(members)
        self.types += struct.pack("=III", self.name(name), info, 0)
        for label, number, bits in members:
            self.types += struct.pack("=III", self.name(label), number, bits)
        self.types += trailer
        self.count += 1
        return self.count

    def bytes(self):
        """All of it, as the kernel shows it."""
        sizes = (24, 0, len(self.types), len(self.types), len(self.strings))
        head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, *sizes)
        return head + self.types + self.strings


@pytest.fixture
def kernel():
    """Some types that are passed over, and `packet` with an unnamed union and a bit field."""
    blob = Blob()
    number = blob.add("int", INT, trailer=bytes(4))
    blob.add("", ARRAY, trailer=bytes(12))
    blob.add("packet", STRUCT)  # declared here and not there
    inner = blob.add("inner", STRUCT, [("inum", number, 64)])
    either = blob.add("", UNION, [("one", number, 0), ("other", inner, 0)])
    blob.add("packet", STRUCT, [("first", number, 0), ("", either, 32), ("in", inner, 128)])
    blob.add("bits", STRUCT, [("flag", number, 1 << 24), ("after", number, 32)], flag=1)
    return Btf(blob.bytes())


def test_offsets(kernel):
    """A member of an unnamed union counts as the struct's own, and a dot leads into a member."""
    found = kernel.offsets({"packet": ["first", "one", "other.inum", "in.inum"], "bits": ["after"]})
    assert found == {
        "packet": {"first": 0, "one": 4, "other.inum": 12, "in.inum": 24},
        "bits": {"after": 4},
    }


@pytest.mark.parametrize(
    ("name", "path"), [("packet", "last"), ("nosuch", "first"), ("packet", "first.inum")]
)
def test_what_the_kernel_has_not(kernel, name, path):
    """A struct or member that is not there is named."""
    with pytest.raises(ContractError, match=f"struct {name} has no member {path}"):
        kernel.offsets({name: [path]})


def of_another_kind():
    """A blob with a type whose length nobody here knows."""
    blob = Blob()
    blob.add("new", 20)
    return blob.bytes()


@pytest.mark.parametrize(
    ("blob", "sentence"),
    [
        (b"", "does not begin as BTF does"),
        (bytes(64), "does not begin as BTF does"),
        (of_another_kind()[:-1], "is cut short"),
        (of_another_kind(), "has a kind 20, which is not known here"),
    ],
)
def test_what_is_no_btf(blob, sentence):
    """Other bytes are refused rather than read."""
    with pytest.raises(ContractError, match=f"BTF {sentence}"):
        Btf(blob)
