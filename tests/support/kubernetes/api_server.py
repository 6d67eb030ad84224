"""An API server over HTTP/1.1 on loopback: lists in pages, watches as streams of lines."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from support.deadlines import DEADLINE_SECONDS
from support.kubernetes.cluster import Cluster, GoneError, Scope
from support.kubernetes.faults import Fault, Faults
from support.kubernetes.objects import KINDS, KNOWN, status_object
from support.kubernetes.watch_answer import WatchAnswer
from support.ports import close_listening

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_PATHS = re.compile(
    r"/(?:api/v1|apis/discovery\.k8s\.io/v1)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>\w+)"
)


class Request(NamedTuple):
    """One that was received."""

    verb: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]


class ApiServer:
    """Serves a cluster until the end of its `async with` block.

    Attributes:
        cluster: what it serves.
        faults: what it does wrong.
        requests: all that were received.
        watches: how many are open.
        token: only who shows it is answered; empty: everybody.
        forbidden: verbs and resources that nobody may, such as `watch pods`.
        forbidden_namespaces: where nobody may do anything.
        bookmark_seconds: how often a watch gets a bookmark; 0: never.
    """

    def __init__(self, cluster: Cluster | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.cluster = cluster or Cluster()
        self.faults = Faults()
        self.requests: list[Request] = []
        self.watches = 0
        self.token = ""
        self.forbidden: set[str] = set()
        self.forbidden_namespaces: set[str] = set()
        self.bookmark_seconds = 0.0
        self._tls = tls
        self._port = 0
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where it listens; the same after it was stopped and started again."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    def serve_with(self, tls: ssl.SSLContext) -> None:
        """Show another certificate from the next start on."""
        self._tls = tls

    async def stop(self) -> None:
        """Stop listening, and break all connections."""
        if self._server is not None:
            await close_listening(self._server)
        self.disconnect()
        while self._connections:
            await asyncio.wait(self._connections)

    def disconnect(self) -> None:
        """Break all connections, at once and without a word."""
        for task, writer in self._connections.items():
            writer.transport.abort()
            task.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - conditions are of many kinds
                await asyncio.sleep(0.002)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; returns whether another one may come on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        target = urlsplit(first.split(" ")[1])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        parameters = dict(parse_qsl(target.query))
        verb = "watch" if parameters.get("watch") in {"1", "true"} else "list"
        request = Request(verb, target.path, parameters, headers)
        self.requests.append(request)
        found = _PATHS.fullmatch(target.path)
        fault = self.faults.next("watch" if verb == "watch" else "list")
        if fault is not None and fault.kind == "status":
            return _refuse(writer, fault.status, "Fault", fault.message, fault.retry_after)
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            return _refuse(writer, 401, "Unauthorized")
        if target.path in KNOWN:
            return await _send(writer, json.dumps(KNOWN[target.path]).encode(), None)
        if found is None or found["plural"] not in KINDS:
            return _refuse(writer, 404, "NotFound")
        if self._is_forbidden(verb, found):
            return _refuse(writer, 403, "Forbidden", f"cannot {verb} resource {found['plural']!r}")
        scope = Scope(
            found["plural"], found["namespace"] or "", parameters.get("labelSelector", "")
        )
        if fault is not None and fault.kind in {"close", "silent"}:
            await (asyncio.sleep(0) if fault.kind == "close" else reader.read())
            return False
        if verb == "list":
            return await self._list(writer, scope, parameters, fault)
        self.watches += 1
        try:
            answer = WatchAnswer(
                self.cluster,
                self.faults,
                reader,
                writer,
                scope,
                parameters,
                fault,
                self.bookmark_seconds,
            )
            return await answer.run()
        finally:
            self.watches -= 1

    def _is_forbidden(self, verb: str, found: re.Match[str]) -> bool:
        is_verb = f"{verb} {found['plural']}" in self.forbidden
        return is_verb or found["namespace"] in self.forbidden_namespaces

    async def _list(
        self,
        writer: asyncio.StreamWriter,
        scope: Scope,
        parameters: dict[str, str],
        fault: Fault | None,
    ) -> bool:
        limit = int(parameters.get("limit", "0"))
        revision, start = self.cluster.revision, 0
        if parameters.get("continue"):
            revision, start = json.loads(base64.urlsafe_b64decode(parameters["continue"]))
        try:
            items, remaining = self.cluster.page(scope, revision, start, limit)
        except GoneError:
            return _refuse(writer, 410, "Expired", "The provided continue parameter is too old")
        metadata: dict[str, Any] = {"resourceVersion": str(revision)}
        if remaining:
            token = json.dumps([revision, start + len(items)]).encode()
            metadata |= {
                "continue": base64.urlsafe_b64encode(token).decode(),
                "remainingItemCount": remaining,
            }
        version, kind = KINDS[scope.plural]
        answer = {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata}
        body = json.dumps(answer | {"items": items}).encode()
        return await _send(writer, body, fault)


def _refuse(
    writer: asyncio.StreamWriter,
    code: int,
    reason: str,
    message: str = "",
    retry_after: int | None = None,
) -> bool:
    body = json.dumps(status_object(code, reason, message)).encode()
    after = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
    writer.write(
        f"HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\n{after}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return True


async def _send(writer: asyncio.StreamWriter, body: bytes, fault: Fault | None) -> bool:
    kind = "" if fault is None else fault.kind
    if kind == "garbage":
        body = b"<html>a proxy is here</html>"
    elif kind == "answer" and fault is not None:
        body = fault.body
    elif kind == "huge" and fault is not None:
        body = b'"' + b"x" * fault.size + b'"'
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    if kind == "half":
        writer.write(body[: len(body) // 2])
        await writer.drain()
        return False
    step = 64 if kind == "slow" else len(body)
    for start in range(0, len(body), step):
        writer.write(body[start : start + step])
        await writer.drain()
        await asyncio.sleep(0)
    return True
