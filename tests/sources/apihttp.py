# SPDX-License-Identifier: Apache-2.0
"""How the stand-in API server speaks: requests, answers, and the faults of each."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from apiserver import ApiServer


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens to one request for nodes, instead of the right thing."""

    status: int = 0
    """Answer so, with a Status object."""
    retry_after: int | None = None
    body: bytes = b""
    """Answer 200 with this."""
    error_event: int = 0
    """Answer 200 and send one ERROR event of this code."""
    cut: bool = False
    """Break the connection in the middle of the first event or of the list."""
    mute: bool = False
    """Answer 200, send nothing more, and do not close: the half-open connection."""
    drip: float = 0.0
    """Seconds between two pieces of the body."""


class Server(ThreadingHTTPServer):
    """Keeps its connections, so that they can be cut."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, api: ApiServer, address: tuple[str, int], tls: ssl.SSLContext | None
    ) -> None:
        self.api = api
        self.open: set[socket.socket] = set()
        self.ended = False
        self._tls = tls
        super().__init__(address, Handler)

    def get_request(self) -> tuple[Any, Any]:
        """Remember the connection, and wrap it if this server speaks TLS."""
        connection, address = super().get_request()
        self.open.add(connection)
        if self._tls:
            # The handshake happens in the handler's thread: one client must not stop the others.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            self.open.add(connection)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: clients that go away are what is tested."""

    def cut_all(self) -> None:
        """End every connection and every stream."""
        self.ended = True
        for connection in list(self.open):
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        """Nodes, a node, or a pod."""
        api, url = self.server.api, urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        # A request that was under way when the server went down must not eat a later fault.
        self.close_connection = self.server.ended
        if self.server.ended or not self._authorized():
            return
        api.requests.append(self.path)
        if url.path == "/api/v1/nodes":
            self._nodes(query, api.next_fault())
        elif (
            url.path.startswith("/api/v1/nodes/") and (name := url.path.split("/")[4]) in api.nodes
        ):
            self._answer(200, encoded(api.nodes[name]))
        elif url.path == "/api/v1/pods":
            node = query["fieldSelector"].partition("=")[2]
            self._answer(200, encoded({"items": api.pods_on(node)}))
        elif url.path in api.objects:
            found = api.objects[url.path]
            if isinstance(found, int):
                self._refuse(found, f"{url.path} may not be read")
            else:
                self._answer(200, encoded(found))
        elif url.path in api.pods:
            self._answer(200, encoded({"spec": {"nodeName": api.pods[url.path]}}))
        else:
            self._refuse(404, f"{url.path} not found")

    def do_PATCH(self) -> None:
        """Merge of a node's annotations and conditions; any other object is applied whole."""
        api = self.server.api
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._authorized():
            return
        fault = api.next_fault() if api.faults and api.faults[0].status else Fault()
        if fault.status:
            self._refuse(fault.status, "patch refused")
            return
        api.patches.append((self.path, self.headers["Content-Type"], body))
        patch = json.loads(body)
        path = urlsplit(self.path).path
        if not path.startswith("/api/v1/nodes/"):
            self._answer(200, encoded(api.store(path, patch)))
            return
        node = json.loads(encoded(api.nodes[path.split("/")[4]]))
        annotations = node["metadata"].setdefault("annotations", {})
        annotations.update(patch.get("metadata", {}).get("annotations", {}))
        for key in [key for key, value in annotations.items() if value is None]:
            del annotations[key]
        # Strategic merge: conditions are merged by their type.
        conditions = {c["type"]: c for c in node["status"]["conditions"]}
        conditions |= {c["type"]: c for c in patch.get("status", {}).get("conditions", [])}
        node["status"]["conditions"] = list(conditions.values())
        api.put(node)
        self._answer(200, encoded(node))

    def do_DELETE(self) -> None:
        """An object that was applied."""
        if not self._authorized():
            return
        if self.server.api.objects.pop(self.path, None) is None:
            self._refuse(404, f"{self.path} not found")
        else:
            self._answer(200, b"{}")

    def _authorized(self) -> bool:
        wanted = self.server.api.token
        if wanted and self.headers.get("Authorization") != f"Bearer {wanted}":
            self._refuse(401, "Unauthorized")
            return False
        return True

    def _nodes(self, query: dict[str, str], fault: Fault) -> None:
        if fault.status:
            self._refuse(fault.status, "not now", retry_after=fault.retry_after)
        elif fault.body:
            self._answer(200, fault.body)
        elif "watch" not in query:
            self._list(query, fault)
        elif "sendInitialEvents" in query and not self.server.api.watch_list:
            self._refuse(422, "sendInitialEvents is forbidden for watch")
        else:
            try:
                self._watch(query, fault)
            except OSError:
                self.close_connection = True

    def _list(self, query: dict[str, str], fault: Fault) -> None:
        api = self.server.api
        with api.moved:
            names = sorted(api.nodes)
            start, version = 0, api.version
            if "continue" in query:
                start, version = (int(part) for part in query["continue"].split("."))
            end = start + int(query.get("limit") or len(names))
            meta = {"resourceVersion": str(version)}
            if end < len(names):
                meta["continue"] = f"{end}.{version}"
            items = b",".join(encoded(api.nodes[name]) for name in names[start:end])
        head = b'{"kind":"NodeList","apiVersion":"v1","metadata":' + encoded(meta)
        body = head + b',"items":[' + items + b"]}\n"
        self._begin({"Content-Length": str(len(body))})
        if fault.cut:
            self.wfile.write(body[: len(body) // 2])
            self._cut()
        elif fault.drip:
            for at in range(0, len(body), 100):
                self.wfile.write(body[at : at + 100])
                time.sleep(fault.drip)
        else:
            self.wfile.write(body)

    def _watch(self, query: dict[str, str], fault: Fault) -> None:
        api = self.server.api
        seen = int(query.get("resourceVersion") or 0)
        if seen and seen < api.oldest:
            self._refuse(410, f"too old resource version: {seen} ({api.oldest})")
            return
        self._begin({"Transfer-Encoding": "chunked"})
        if fault.mute:
            while not self.server.ended:
                time.sleep(0.02)
            return
        if fault.error_event:
            status = {"kind": "Status", "code": fault.error_event, "message": "too old"}
            self._chunk(event("ERROR", encoded(status)))
        else:
            self._tell(query, seen, fault)
        self.wfile.write(b"0\r\n\r\n")

    def _tell(self, query: dict[str, str], seen: int, fault: Fault) -> None:
        api = self.server.api
        end = time.monotonic() + float(query["timeoutSeconds"])
        if not seen:
            seen = self._initial(fault)
        quiet_until = time.monotonic() + api.bookmark_every
        while not self.server.ended and (left := end - time.monotonic()) > 0:
            with api.moved:
                if api.version == seen:
                    api.moved.wait(min(left, quiet_until - time.monotonic()))
                if seen < api.oldest < api.version:
                    return
                news = [line for line in api.history if line[0] > seen]
                seen = api.version
            for _, kind, thing in news:
                self._chunk(event(kind, thing), fault)
            if time.monotonic() >= quiet_until:
                self._chunk(bookmark(seen))
                quiet_until = time.monotonic() + api.bookmark_every

    def _initial(self, fault: Fault) -> int:
        api = self.server.api
        with api.moved:
            version, nodes = api.version, [encoded(api.nodes[name]) for name in sorted(api.nodes)]
        for node in nodes:
            self._chunk(event("ADDED", node), fault)
        self._chunk(bookmark(version, {"k8s.io/initial-events-end": "true"}))
        return version

    def _chunk(self, line: bytes, fault: Fault = Fault()) -> None:
        if fault.drip:
            time.sleep(fault.drip)
        if fault.cut:
            self.wfile.write(b"%x\r\n%s" % (len(line), line[: len(line) // 2]))
            self._cut()
            raise ConnectionAbortedError
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _cut(self) -> None:
        socket.socket.shutdown(self.connection, socket.SHUT_RDWR)
        self.close_connection = True

    def _begin(self, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self._begin({"Content-Length": str(len(body)), **headers}, status)
        self.wfile.write(body)

    def _refuse(self, status: int, message: str, *, retry_after: int | None = None) -> None:
        body = encoded({"kind": "Status", "status": "Failure", "code": status, "message": message})
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._answer(status, body, **headers)


def encoded(thing: Any) -> bytes:
    """JSON as Go writes it."""
    return json.dumps(thing, separators=(",", ":")).encode()


def event(kind: str, thing: bytes) -> bytes:
    """One line of a watch."""
    return b'{"type":"%s","object":%s}\n' % (kind.encode(), thing)


def bookmark(version: int, annotations: dict[str, str] | None = None) -> bytes:
    """A line that only says how far the stream has come."""
    meta: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    thing = {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": {}, "status": {}}
    return event("BOOKMARK", encoded(thing))
