# SPDX-License-Identifier: Apache-2.0
"""What the reflector asks an API server next, by what came before: no server, a script of one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from vxlane.sources.http import HttpError, SilenceError
from vxlane.sources.kubernetes.api import INITIAL_END
from vxlane.sources.kubernetes.reflector import Reflector
from vxlane.sources.model import Node, derived_mac
from vxlane.sources.table import NodeTable

SILENCE = SilenceError("the watch of nodes")


def refused(status: int) -> HttpError:
    """The server's answer with another status than 200."""
    return HttpError("the watch of nodes", status, words="")


GONE, UNKNOWN_PARAMETER = refused(410), refused(400)


def thing(number: int, *, version: int = 0, age: str = "") -> dict[str, Any]:
    """A Node object: its number, the resourceVersion and the creationTimestamp."""
    named = {"name": f"node{number}", "resourceVersion": str(version)}
    return {"metadata": named | ({"creationTimestamp": age} if age else {})}


def slim(node: Mapping[str, Any]) -> Node | None:
    """What is kept of it; the ninth is not of this network."""
    name = node["metadata"]["name"]
    number = int(name.removeprefix("node"))
    cidr = IPv4Network(f"10.42.{number}.0/24")
    address = IPv4Address(f"192.168.77.{number}")
    return None if number == 9 else Node(name, address, cidr, derived_mac(name))


def event(kind: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a watch."""
    return {"type": kind, "object": node}


def bookmark(version: int, *, ends_initial: bool = False) -> dict[str, Any]:
    """A bookmark; the one that says that the initial events were all."""
    annotations = {INITIAL_END: "true"} if ends_initial else {}
    return event(
        "BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": annotations}}
    )


def page(*nodes: Mapping[str, Any], version: int) -> list[tuple[str, Any]]:
    """A whole list."""
    items: list[tuple[str, Any]] = [("items", node) for node in nodes]
    return [*items, ("metadata", {"resourceVersion": str(version)})]


class Script:
    """Stands in for `NodesApi`: its answers in order, and what it was asked.

    An answer that is an error is a refusal; an error inside an answer comes in mid-stream.
    """

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    def pages(self, *, version: str) -> Iterator[Any]:
        """See `NodesApi`."""
        self.asked.append(("list", version))
        return _played(self._next())

    @contextlib.contextmanager
    def watch(self, version: str) -> Iterator[Iterator[Any]]:
        """See `NodesApi`."""
        self.asked.append(("watch", version))
        yield _played(self._next())

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _played(answer: Any) -> Iterator[Any]:
    for part in answer:
        if isinstance(part, Exception):
            raise part
        yield part


@pytest.fixture
def table() -> Iterator[NodeTable]:
    """An empty table of node 0."""
    made = NodeTable("node0")
    yield made
    made.close()


def names(table: NodeTable) -> list[str]:
    """Who is in the table, in its order."""
    return [node.name for node in table.snapshot().peers]


INITIAL = [event("ADDED", thing(1)), event("ADDED", thing(2)), bookmark(10, ends_initial=True)]


def test_the_next_round_resumes_after_the_last_version(table: NodeTable) -> None:
    """Events and bookmarks move the place to resume from; nothing is read twice."""
    api = Script([*INITIAL, event("ADDED", thing(3, version=11)), bookmark(12)], [], [])
    reflector = Reflector(api, table, slim)
    for _ in range(3):
        reflector.round()
    assert api.asked == [("watch", ""), ("watch", "12"), ("watch", "12")]
    assert names(table) == ["node1", "node2", "node3"]


def test_versions_of_initial_events_are_no_place_to_resume_from(table: NodeTable) -> None:
    """A stream that stops before its closing bookmark gave no set: a list does, and its version."""
    cut = [event("ADDED", thing(1, version=99)), SILENCE]
    api = Script(cut, page(thing(2), version=7), [])
    Reflector(api, table, slim).round()
    assert api.asked == [("watch", ""), ("list", "0"), ("watch", "7")]
    assert names(table) == ["node2"]


def test_a_deletion_among_the_initial_events_counts(table: NodeTable) -> None:
    """A node that goes while the initial events are sent is not in the set."""
    gone = event("DELETED", thing(1))
    Reflector(Script([*INITIAL[:2], gone, INITIAL[2]]), table, slim).round()
    assert names(table) == ["node2"]


def test_a_forgotten_version_is_answered_by_a_full_read(table: NodeTable) -> None:
    """After 410 the whole set is read at once, and who is not in it is gone."""
    anew = [event("ADDED", thing(2)), bookmark(20, ends_initial=True)]
    api = Script(INITIAL, GONE, anew, [])
    reflector = Reflector(api, table, slim)
    reflector.round()
    reflector.round()
    assert names(table) == ["node2"]
    reflector.round()
    assert api.asked == [("watch", ""), ("watch", "10"), ("watch", ""), ("watch", "20")]


def test_what_is_no_410_is_raised_and_resumed(table: NodeTable) -> None:
    """A server in trouble does not cost the place: the next round asks from there again."""
    api = Script(INITIAL, refused(500), [])
    reflector = Reflector(api, table, slim)
    reflector.round()
    with pytest.raises(HttpError):
        reflector.round()
    reflector.round()
    assert api.asked[1:] == [("watch", "10"), ("watch", "10")]
    assert names(table) == ["node1", "node2"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_initial_events_is_listed_from_then_on(
    table: NodeTable, status: int
) -> None:
    """The refusal is remembered, and the first list may be of the server's memory, no later one."""
    refusal = refused(status)
    api = Script(refusal, page(thing(1), version=5), [], GONE, page(thing(2), version=9), [])
    reflector = Reflector(api, table, slim)
    reflector.round()
    assert api.asked == [("watch", ""), ("list", "0"), ("watch", "5")]
    reflector.round()
    assert api.asked[3:] == [("watch", "5"), ("list", ""), ("watch", "9")]
    assert names(table) == ["node2"]


def test_a_refusal_for_another_reason_is_no_lack_of_initial_events(table: NodeTable) -> None:
    """403 is raised, and the next round tries the one stream again."""
    api = Script(refused(403), INITIAL)
    reflector = Reflector(api, table, slim)
    with pytest.raises(HttpError):
        reflector.round()
    reflector.round()
    assert api.asked == [("watch", ""), ("watch", "")]


def test_silence_is_no_failure(table: NodeTable) -> None:
    """A quiet stream ends its round without a word, and the next one resumes."""
    api = Script([*INITIAL, SILENCE], [bookmark(10), SILENCE], [])
    reflector = Reflector(api, table, slim)
    for _ in range(3):
        reflector.round()
    assert api.asked == [("watch", ""), ("watch", "10"), ("watch", "10")]
    assert table.snapshot().error == ""


def test_a_server_that_was_restored_is_read_anew(table: NodeTable) -> None:
    """It has yet to reach the version that is known here, and says nothing until then."""
    anew = [event("ADDED", thing(2)), bookmark(4, ends_initial=True)]
    api = Script([*INITIAL, SILENCE], [SILENCE], [*anew, SILENCE], [])
    reflector = Reflector(api, table, slim)
    for _ in range(4):
        reflector.round()
    assert api.asked == [("watch", ""), ("watch", "10"), ("watch", ""), ("watch", "4")]
    assert names(table) == ["node2"]


def test_a_cut_list_changes_nothing(table: NodeTable) -> None:
    """Half of a list is not taken for the whole."""
    api = Script(INITIAL, GONE, UNKNOWN_PARAMETER, [("items", thing(3)), SILENCE])
    reflector = Reflector(api, table, slim)
    reflector.round()
    reflector.round()
    assert names(table) == ["node1", "node2"]


def test_the_oldest_node_comes_first_whatever_the_order_of_the_answer(table: NodeTable) -> None:
    """Of two nodes that contradict each other the older stays; without ages the name decides."""
    nodes = [
        thing(3, age="2024-01-01T00:00:00Z"),
        thing(2, age="2025-01-01T00:00:00Z"),
        thing(1, age="2025-01-01T00:00:00Z"),
    ]
    Reflector(Script(UNKNOWN_PARAMETER, page(*nodes[::-1], version=1), []), table, slim).round()
    assert names(table) == ["node3", "node1", "node2"]


def test_what_is_of_no_network_is_left_out(table: NodeTable) -> None:
    """A node that flannel does not run on is no entry; one that stops running it goes."""
    api = Script([event("ADDED", thing(9)), *INITIAL, event("MODIFIED", thing(9, version=11))])
    Reflector(api, table, slim).round()
    assert names(table) == ["node1", "node2"]


def test_a_changed_and_a_deleted_node_are_seen(table: NodeTable) -> None:
    """MODIFIED replaces the entry, DELETED takes it away."""
    api = Script(
        [*INITIAL, event("MODIFIED", thing(2, version=11)), event("DELETED", thing(1, version=12))]
    )
    Reflector(api, table, slim).round()
    assert names(table) == ["node2"]


def test_a_server_that_ignores_the_parameters_is_listed_from_then_on(table: NodeTable) -> None:
    """One that never says that these were all nodes is not waited for again."""
    api = Script([event("ADDED", thing(1)), SILENCE], page(thing(1), version=5), [], GONE)
    api.answers += [page(thing(2), version=9), []]
    reflector = Reflector(api, table, slim)
    reflector.round()
    reflector.round()
    assert api.asked[3:] == [("watch", "5"), ("list", ""), ("watch", "9")]


def test_a_server_that_fell_silent_later_is_still_streamed(table: NodeTable) -> None:
    """Silence after the closing bookmark is no sign that the parameters are unknown."""
    api = Script([*INITIAL, SILENCE], GONE, INITIAL)
    reflector = Reflector(api, table, slim)
    reflector.round()
    reflector.round()
    assert api.asked == [("watch", ""), ("watch", "10"), ("watch", "")]


@pytest.mark.parametrize("answer", [[], [bookmark(11)]], ids=["agreed", "bookmark"])
def test_a_server_that_answers_again_is_well(table: NodeTable, answer: list[Any]) -> None:
    """That it agrees to a watch ends its error; a bookmark says that all is known."""
    reflector = Reflector(Script(INITIAL, answer), table, slim)
    reflector.round()
    before = table.snapshot().read_at
    table.fail("it is down")
    reflector.round()
    after = table.snapshot()
    assert after.error == ""
    assert before is not None
    assert after.read_at is not None
    assert after.read_at > before


def test_a_bookmark_is_a_sign_of_life(table: NodeTable) -> None:
    """An error that is told between two events ends with a bookmark."""

    def events() -> Iterator[Any]:
        yield from INITIAL
        table.fail("told meanwhile")
        yield bookmark(11)

    Reflector(Script(events()), table, slim).round()
    assert table.snapshot().error == ""
