"""Calls Redis or Valkey: scripts, several in one parallel round trip, and plain commands."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Self

from redis import asyncio as client
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from store.errors import StoreError, decoding, store_error
from store.scripts import read_sources

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from store.address import StoreAddress
    from store.layout import Layout
    from store.scripts import Call

_ATTEMPTS = 2  # by digest, then with the text where the server does not know the script


_SOURCES = read_sources()
_DIGESTS = {
    name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SOURCES.items()
}


class Server:
    """The server or cluster at an address, within an `async with` block.

    No call waits longer than twice the timeout: to connect, and for the answer. Every method raises
    StoreError. Whatever a call writes is absolute or guarded, so that it can be made again.
    """

    def __init__(self, address: StoreAddress) -> None:
        self.address = address
        self._sentinel: Any = None

    async def __aenter__(self) -> Self:
        """Do not connect yet: the service starts while the store is down."""
        self._client: Any = self._connect()
        return self

    def _connect(self) -> Any:
        address = self.address
        options: dict[str, Any] = {
            "username": address.username or None,
            "password": address.password or None,
            "socket_timeout": address.timeout,
            "socket_connect_timeout": address.timeout,
        }
        if address.tls:
            options |= {
                "ssl": True,
                "ssl_ca_certs": None if address.ca_file is None else str(address.ca_file),
                "ssl_certfile": _path(address.certificate_file),
                "ssl_keyfile": _path(address.key_file),
            }
        if address.is_cluster:
            nodes = [client.cluster.ClusterNode(host, port) for host, port in address.hosts]
            return client.RedisCluster(
                startup_nodes=nodes,
                require_full_coverage=False,
                retry=Retry(NoBackoff(), 3),
                **options,
            )
        retried = (exceptions.ConnectionError,)  # the server has closed an idle connection
        options |= {"db": address.database, "retry": Retry(NoBackoff(), 1, retried)}
        if address.kind == "sentinel":
            self._sentinel = client.Sentinel(  # type: ignore[no-untyped-call]
                list(address.hosts), sentinel_kwargs=options | {"db": 0}, **options
            )
            return self._sentinel.master_for(address.service)
        if address.path:
            return client.Redis(unix_socket_path=address.path, **options)
        (host, port), *_ = address.hosts
        return client.Redis(host=host, port=port, **options)

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.aclose()
        if self._sentinel is not None:
            for sentinel in self._sentinel.sentinels:
                await sentinel.aclose()

    # Calls

    async def call_all(self, layout: Layout, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in one parallel round trip.

        Returns what each script returns, or the StoreError in its place.
        """
        if not calls:
            return []
        answers: list[Any] = [None] * len(calls)
        pending = list(range(len(calls)))
        for attempt in range(_ATTEMPTS):
            returned = await self._run(
                layout, [calls[index] for index in pending], by_digest=attempt == 0
            )
            for index, answer in zip(pending, returned, strict=True):
                answers[index] = answer
            pending = [i for i in pending if isinstance(answers[i], exceptions.NoScriptError)]
            if not pending:
                break
        return [
            store_error(answer) if isinstance(answer, Exception) else answer for answer in answers
        ]

    async def _run(self, layout: Layout, calls: Sequence[Call], *, by_digest: bool) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        command, texts = ("EVALSHA", _DIGESTS) if by_digest else ("EVAL", _SOURCES)
        for shard, script in calls:
            prefix = layout.prefix(shard)
            pipeline.execute_command(
                command, texts[script.file], 1, prefix + "w", prefix, *script.arguments()
            )
        async with self._within(2 * self.address.timeout):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    async def execute(self, command: str, key: str, *arguments: str | bytes | int) -> Any:
        """Run a plain command, whose keys lie in one shard, and return its answer.

        A key of another type than the command's is deleted: whoever is to write it finds it lost.
        """
        try:
            async with self._within(2 * self.address.timeout):
                return await self._client.execute_command(command, key, *arguments)
        except StoreError as error:
            if error.kind == "malformed":
                async with self._within(2 * self.address.timeout):
                    await self._client.unlink(key)
            raise

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """Turn what the client raises into a StoreError, and lose no cancellation."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        failure: StoreError | None = None
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:  # noqa: BLE001 - the client fails in any way on lost connections
            failure = store_error(error)
        except asyncio.CancelledError:
            failure = StoreError("unreachable", "the client has cancelled the call")
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        if failure is not None:
            raise failure

    async def drops_keys(self) -> str:
        """Return the policy by which a full server drops keys of ours; empty if it drops none.

        It is empty, too, if this service's user may not ask. Raises StoreError.
        """
        try:
            async with self._within(2 * self.address.timeout):
                memory = await self._client.info("memory")
        except StoreError as error:
            if error.kind != "refused":
                raise
            return ""
        policy = str(memory.get("maxmemory_policy", ""))
        return policy if policy.startswith("allkeys") else ""

    async def read_journal(
        self, key: str, after: bytes, count: int, wait: float
    ) -> list[tuple[bytes, bytes]]:
        """Return entries after an id, with their ids; wait up to `wait` seconds for the first."""
        wait = min(wait, self.address.timeout / 2)
        async with self._within(wait + 2 * self.address.timeout):
            answer: Any = await self._client.xread(
                {key: after}, count=count, block=max(1, round(wait * 1000))
            )
        if not answer:
            return []
        # RESP3 answers with a mapping, RESP2 with pairs.
        entries = next(iter(answer.values()))[0] if isinstance(answer, dict) else answer[0][1]
        with decoding("journal"):
            return [(entry_id, fields[b"e"]) for entry_id, fields in entries]


def _path(path: Any) -> str | None:
    return None if path is None else str(path)
