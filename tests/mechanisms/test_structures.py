# SPDX-License-Identifier: Apache-2.0
"""Structures of rules that not every kernel can hold, as kernels that can would dump them."""

from __future__ import annotations

import struct

import pytest
from reading import VIEW

from vxlane.mechanisms import legacy, xtables
from vxlane.mechanisms.findings import findings
from vxlane.mechanisms.kinds import Kind
from vxlane.mechanisms.nft import Decoder
from vxlane.mechanisms.nft_register import SetContent
from vxlane.mechanisms.packet import Field, Match, NameTest, NumberTest, established, sent
from vxlane.mechanisms.rules import Base, ChainKey, Code, Family, Hook, Unknown, Verdict
from vxlane.netlink import nftables as nft
from vxlane.netlink import rtnetlink as rt
from vxlane.netlink.socket import attribute, nested

FORWARD = Base(ChainKey(Family.IP, "t", "forward"), Hook.FORWARD, 0)
NAME, DATA, ELEMENT = 1, 2, 1  # NFTA_EXPR_NAME, NFTA_EXPR_DATA, NFTA_LIST_ELEM


def expression(name, *members):
    """One element of an NFTA_RULE_EXPRESSIONS."""
    return nested(ELEMENT, attribute(NAME, name.encode() + b"\0"), nested(DATA, *members))


def number(kind, value):
    """One attribute that is a number."""
    return attribute(kind, rt.BE32.pack(value))


def payload(register, base, offset, size):
    """Loads bytes of a header."""
    return expression(
        "payload",
        number(nft.NFTA_PAYLOAD_DREG, register),
        number(nft.NFTA_PAYLOAD_BASE, base),
        number(nft.NFTA_PAYLOAD_OFFSET, offset),
        number(nft.NFTA_PAYLOAD_LEN, size),
    )


def equals(value):
    """Compares the first register."""
    return expression(
        "cmp",
        number(nft.NFTA_CMP_SREG, FIRST),
        number(nft.NFTA_CMP_OP, nft.NFT_CMP_EQ),
        nested(nft.NFTA_CMP_DATA, attribute(nft.NFTA_DATA_VALUE, value)),
    )


def lookup(register):
    """Looks up the set whose key begins in a register."""
    return expression(
        "lookup", attribute(nft.NFTA_LOOKUP_SET, b"s\0"), number(nft.NFTA_LOOKUP_SREG, register)
    )


EMPTY = SetContent(())


def rule(*expressions, content=EMPTY):
    """The rule that a Decoder makes of expressions, where every set has this content."""
    decoder = Decoder(Family.IP, lambda _: content, lambda _: "")
    return decoder.rule(b"".join(expressions))


def kinds(*rules):
    """The kinds that packets of pods meet in a chain of `rules`."""
    return {found.kind for found in findings([FORWARD], lambda _: rules, VIEW)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flow_offload", Kind.FLOWTABLE),
        ("queue", Kind.QUEUE),
        ("synproxy", Kind.SYNPROXY),
        ("inner", Kind.PAYLOAD),
        ("something-of-linux-9", Kind.UNKNOWN),
    ],
)
def test_expressions_of_other_kernels(name, kind):
    """Flow add, queue, synproxy, a look into the tunnel, and what nobody knows yet have a kind."""
    assert kinds(rule(expression(name))) == {kind}


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        (xtables.match_steps("something", b""), Kind.UNKNOWN),
        (xtables.target_steps("SOMETHING", b""), Kind.UNKNOWN),
        (xtables.target_steps("SYNPROXY", b""), Kind.SYNPROXY),
        (xtables.target_steps("AUDIT", b""), Kind.LOG),
        (xtables.match_steps("nfacct", b""), Kind.ACCOUNT),
        (xtables.target_steps("HL", b""), Kind.REWRITE),
    ],
)
def test_extensions_of_other_kernels(steps, kind):
    """Extensions of xtables that this kernel may lack, and unknown ones, have a kind."""
    assert kinds(tuple(steps)) == {kind}


def standard(verdict):
    """An entry of iptables-legacy's for every packet, with a standard target."""
    head = struct.pack("=84sIHHI16x", b"", 0, 112, 152, 0)  # struct ipt_entry
    return head + struct.pack("=H29sBi4x", 40, b"", 0, verdict)  # struct xt_standard_target


@pytest.mark.parametrize(
    ("verdict", "steps"),
    [
        (-1, (Verdict(Code.DROP),)),
        (-2, (Verdict(Code.ACCEPT),)),
        (-3, (Kind.UNKNOWN,)),
        (-4, (Kind.QUEUE, Verdict(Code.ACCEPT))),
        (-5, (Verdict(Code.RETURN),)),
        (-6, (Kind.UNKNOWN,)),
        (-77, (Kind.UNKNOWN,)),
        (152, ()),
    ],
)
def test_verdicts_of_iptables_legacy(verdict, steps):
    """A verdict that is not known is neither a drop nor an accept. The next entry is no verdict."""
    block = standard(verdict) + standard(-2)
    start, end = (0, 0, 0, 0, 0), (0, 0, 152, 0, 0)
    info = legacy.INFO.pack(b"filter", 1 << Hook.FORWARD, *start, *end, 2, len(block))
    chain = ChainKey(Family.IP, "filter", "FORWARD", is_legacy=True)
    assert legacy.table(info, block).rules[chain] == (steps,)


# The first 32-bit registers, as the kernel's dumps number them (nft_dump_register).
FIRST, SECOND, THIRD, FOURTH, FIFTH = 1, 9, 10, 11, 2
IS_TCP = payload(FIRST, nft.NFT_PAYLOAD_NETWORK_HEADER, 9, 1) + equals(b"\6")
SOURCE = payload(FIRST, nft.NFT_PAYLOAD_NETWORK_HEADER, 12, 4)
DROP = expression(
    "immediate",
    number(nft.NFTA_IMMEDIATE_DREG, nft.NFT_REG_VERDICT),
    nested(
        nft.NFTA_IMMEDIATE_DATA,
        nested(nft.NFTA_DATA_VERDICT, number(nft.NFTA_VERDICT_CODE, nft.NF_DROP)),
    ),
)


@pytest.mark.parametrize(
    ("register", "key_size", "expected"),
    [
        (SECOND, 4, set()),
        (SECOND, 8, {Kind.HEADER}),
        (FOURTH, 12, set()),
        (FOURTH, 16, {Kind.HEADER}),
        (FIFTH, 16, set()),
        (FIFTH, 18, {Kind.HEADER}),
    ],
)
@pytest.mark.parametrize("is_whole", [False, True])
def test_a_set_is_asked_for_the_registers_of_its_key(register, key_size, expected, is_whole):
    """A set whose elements are not known is asked for the fields in its key, and for no others."""
    flags = payload(register, nft.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1)
    content = SetContent((), is_whole=is_whole, key_size=key_size)
    assert kinds(rule(IS_TCP, flags, SOURCE, lookup(FIRST), DROP, content=content)) == expected


MASK_XOR, LSHIFT, RSHIFT, AND, OR, XOR = range(6)  # NFT_BITWISE_*
CONNMARK = 3  # NFT_CT_MARK
CT_MARK = expression("ct", number(nft.NFTA_CT_DREG, SECOND), number(nft.NFTA_CT_KEY, CONNMARK))
SET_MARK = expression(
    "meta",
    number(nft.NFTA_META_KEY, nft.NFT_META_MARK),
    number(nft.NFTA_META_SREG, FIRST),
)
PACKET_MARK = expression(
    "meta",
    number(nft.NFTA_META_KEY, nft.NFT_META_MARK),
    number(nft.NFTA_META_DREG, FIRST),
)
FLAGS = payload(FIRST, nft.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1)


def bitwise(operation, *members):
    """An operation on the first register, and what else it is of."""
    return expression(
        "bitwise",
        number(nft.NFTA_BITWISE_SREG, FIRST),
        number(nft.NFTA_BITWISE_DREG, FIRST),
        number(nft.NFTA_BITWISE_OP, operation),
        *members,
    )


OF_SECOND = number(nft.NFTA_BITWISE_SREG2, SECOND)
ONE = nested(7, attribute(nft.NFTA_DATA_VALUE, bytes(3) + b"\1"))  # NFTA_BITWISE_DATA


@pytest.mark.parametrize(
    ("operation", "member", "expected"),
    [
        (AND, OF_SECOND, {Kind.MARK}),
        (OR, OF_SECOND, {Kind.MARK}),
        (XOR, OF_SECOND, {Kind.MARK}),
        (OR, ONE, {Kind.MARK}),
        (XOR, ONE, {Kind.MARK}),
        (LSHIFT, ONE, set()),
        (RSHIFT, ONE, set()),
    ],
)
def test_a_mark_and_another_register_are_a_mark(operation, member, expected):
    """`meta mark set meta mark | ct mark` sets a mark; to shift a mark of 0 leaves it 0."""
    loads = CT_MARK, PACKET_MARK
    assert kinds(rule(*loads, bitwise(operation, member), SET_MARK)) == expected


@pytest.mark.parametrize("operation", [AND, OR, XOR])
def test_flags_and_another_register_are_a_test_of_flags(operation):
    """TCP flags may be either of the two registers."""
    ends = bitwise(operation, OF_SECOND), equals(b"\x11"), DROP
    assert kinds(rule(IS_TCP, CT_MARK, FLAGS, *ends)) == {Kind.HEADER}
    flags = payload(SECOND, nft.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1)
    assert kinds(rule(IS_TCP, flags, PACKET_MARK, *ends)) == {Kind.HEADER}


def test_a_country_is_a_connections_own():
    """The match geoip of xtables-addons tests addresses, as iprange does."""
    assert kinds((*xtables.match_steps("geoip", b""), Verdict(Code.DROP))) == set()


def test_a_match_of_an_old_revision_is_not_known():
    """A structure that is too short for its fields is a test that may fit."""
    assert xtables.match_steps("conntrack", bytes(100)) == [Unknown.CONNECTION]


EQUALS, LESS = 1, 3  # IPSET_COUNTER_EQ, _LT
PLAIN_SET = struct.pack("=HBB", 7, 1, 1)  # struct xt_set_info


def set_of_revision_3(packets=(0, 0), bytes_=(0, 0)):
    """A struct xt_set_info_match_v3, where a comparison stands before its value."""
    return PLAIN_SET + struct.pack("=4xB7xQB7xQI4x", *packets, *bytes_, 0)


def set_of_revision_4(packets=(0, 0), bytes_=(0, 0)):
    """A struct xt_set_info_match_v4, where it stands behind."""
    return PLAIN_SET + struct.pack("=4xQB7xQB7xI4x", *packets[::-1], *bytes_[::-1], 0)


@pytest.mark.parametrize("pack", [set_of_revision_3, set_of_revision_4])
@pytest.mark.parametrize("counter", [(EQUALS, 0), (LESS, 1), (LESS, 1 << 40)])
def test_a_set_that_counts_is_a_quota(pack, counter):
    """Of either revision, whichever counter is asked for."""
    assert xtables.match_steps("set", pack(packets=counter)) == [Kind.QUOTA]
    assert xtables.match_steps("set", pack(bytes_=counter)) == [Kind.QUOTA]
    assert xtables.match_steps("set", pack()) == [Unknown.TEST]


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (4, Unknown.TEST),
        (8, Unknown.TEST),
        (0, Kind.UNKNOWN),
        (32, Kind.UNKNOWN),
        (56, Kind.UNKNOWN),
    ],
)
def test_a_set_of_another_revision(size, step):
    """Revisions 1 and 2 can't count. Of other sizes nobody knows what they ask for."""
    assert xtables.match_steps("set", bytes(size)) == [step]


def test_a_timeout_of_a_rule_is_found():
    """CT --timeout gives a connection timers that the bypass does not know."""
    data = struct.pack("=HHII16s32s", 0, 0, 0, 0, b"", b"short")
    assert xtables.target_steps("CT", data) == [Kind.TIMEOUT]


def test_a_helper_matters_from_the_first_packet_on():
    """A helper behind `state NEW` matters, a log behind it does not."""
    new = xtables.match_steps("state", struct.pack("=I", 8))
    assert kinds((*new, Kind.HELPER)) == {Kind.HELPER}
    assert kinds((*new, Kind.LOG)) == set()


def test_a_test_fits_none_some_or_all():
    """Ranges, masks, names and their negations are compared with what packets can have."""
    packet = established(VIEW)
    inside, beside = ((0x0A2A0000, 0x0A2AFFFF),), ((0x0A2B0000, 0x0A2BFFFF),)
    halves = ((0x0A2A0000, 0x0A2A7FFF), (0x0A2A8000, 0x0A2AFFFF))
    cases = {
        NumberTest(Field.SOURCE, inside): Match.ALL,
        NumberTest(Field.SOURCE, halves): Match.ALL,
        NumberTest(Field.SOURCE, halves[:1]): Match.SOME,
        NumberTest(Field.SOURCE, beside): Match.NONE,
        NumberTest(Field.SOURCE, beside, is_negated=True): Match.ALL,
        NumberTest(Field.SOURCE_PORT, ((80, 80),)): Match.SOME,
        NumberTest(Field.TCP_FLAGS, ((2, 2),), mask=0x17): Match.NONE,
        NumberTest(Field.TCP_FLAGS, ((0x10, 0x10),), mask=0x16): Match.ALL,
        NumberTest(Field.TCP_FLAGS, ((0x10, 0x10),), mask=0x17): Match.SOME,
        NumberTest(Field.TCP_FLAGS, ((8, 8),), mask=8): Match.SOME,
        NameTest(Field.IN, frozenset({"cni*", "flannel.1"})): Match.ALL,
        NameTest(Field.IN, frozenset({"cni0"})): Match.SOME,
        NameTest(Field.IN, frozenset({"docker0"}), is_negated=True): Match.ALL,
        NameTest(Field.IN_PORT, frozenset({"veth1"})): Match.SOME,
    }
    assert {test: packet.match(test) for test in cases} == cases
    peers = NumberTest(Field.DESTINATION, ((0xC0A80700, 0xC0A807FF),))
    assert sent(VIEW).match(peers) is Match.ALL


@pytest.mark.parametrize(
    ("hook", "priority", "is_hidden"),
    [(Hook.PREROUTING, -300, False), (Hook.PREROUTING, -199, True), (Hook.FORWARD, -300, True)],
)
def test_before_conntrack_nothing_is_established(hook, priority, is_hidden):
    """What accepts established packets hides the next rule only from behind conntrack on."""
    base = Base(ChainKey(Family.IP, "t", "c"), hook, priority)
    tcp = NumberTest(Field.PROTOCOL, ((6, 6),))
    accept = (*xtables.match_steps("state", struct.pack("=I", 2)), Verdict(Code.ACCEPT))
    assert (findings([base], lambda _: (accept, (tcp, Kind.LOG)), VIEW) == ()) is is_hidden
    invalid = (tcp, *xtables.match_steps("state", struct.pack("=I", 1)), Kind.LOG)
    assert (findings([base], lambda _: (invalid,), VIEW) == ()) is is_hidden


def test_a_goto_does_not_come_back():
    """Behind a goto that all packets take nothing is met, behind a jump everything is."""
    chains = {"forward": ((Verdict(Code.GOTO, "deep"),), (Kind.LOG,)), "deep": ()}
    found = findings([FORWARD], lambda key: chains[key.chain], VIEW)
    assert found == ()
    chains["forward"] = ((Verdict(Code.JUMP, "deep"),), (Kind.LOG,))
    assert len(findings([FORWARD], lambda key: chains[key.chain], VIEW)) == 1


def test_chains_that_lead_to_each_other_end():
    """A reading that changed on the way may show a loop; the walk ends all the same."""
    chains = {"forward": ((Verdict(Code.JUMP, "forward"),), (Kind.LOG,))}
    assert len(findings([FORWARD], lambda key: chains[key.chain], VIEW)) == 1
