"""Calls of the store: scripts, each at one shard, several at a time in one round trip."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from hashlib import sha1
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from redis import asyncio as client
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from store.errors import StoreError, store_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from store.address import StoreAddress
    from store.layout import Layout

_TRIES = 2


class Call(NamedTuple):
    """A script to be run at a shard; its first argument, the prefix, is not among `arguments`."""

    script: str
    shard: int
    arguments: tuple[str | bytes | int, ...] = ()


def _read_scripts() -> dict[str, str]:
    folder = resources.files("store") / "lua"
    texts = {
        entry.name.removesuffix(".lua"): entry.read_text()
        for entry in folder.iterdir()
        if entry.name.endswith(".lua")
    }
    prelude = texts.pop("prelude")
    return {name: prelude + text for name, text in texts.items()}


_SCRIPTS = _read_scripts()
_DIGESTS = {
    name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()
}


class Server:
    """The store behind `address`, within an `async with` block. Nothing waits beyond its timeout.

    Every method raises StoreError. What calls write is absolute or guarded: they may be made again.
    """

    def __init__(self, address: StoreAddress) -> None:
        self.address = address
        self._sentinel: Any = None

    async def __aenter__(self) -> Self:
        """Does not connect yet: a store that is down is no reason not to start."""
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
        again = (exceptions.ConnectionError,)  # one that the server has closed meanwhile
        options |= {"db": address.database, "retry": Retry(NoBackoff(), 1, again)}
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

    async def call(self, layout: Layout, call: Call) -> Any:
        """What the script returns."""
        (answer,) = await self.call_all(layout, [call])
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def call_all(self, layout: Layout, calls: Sequence[Call]) -> list[Any]:
        """What each script returns, or the StoreError it came to; one parallel round trip."""
        if not calls:
            return []
        answers: list[Any] = [None] * len(calls)
        missing = list(range(len(calls)))
        for attempt in range(_TRIES):
            found = await self._run(layout, [calls[at] for at in missing], by_name=attempt == 0)
            for at, answer in zip(missing, found, strict=True):
                answers[at] = answer
            missing = [at for at in missing if isinstance(answers[at], exceptions.NoScriptError)]
            if not missing:
                break
        return [
            store_error(answer) if isinstance(answer, Exception) else answer for answer in answers
        ]

    async def _run(self, layout: Layout, calls: Sequence[Call], *, by_name: bool) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for script, shard, arguments in calls:
            prefix = layout.prefix(shard)
            command, what = ("EVALSHA", _DIGESTS) if by_name else ("EVAL", _SCRIPTS)
            pipeline.execute_command(command, what[script], 1, prefix + "w", prefix, *arguments)
        async with self._within(2 * self.address.timeout):
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """What the client raises becomes a StoreError, and a cancellation is not lost in it."""
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        failure: StoreError | None = None
        try:
            async with asyncio.timeout(seconds):
                yield
        except Exception as error:  # noqa: BLE001 - the client trips over its own lost connections
            failure = store_error(error)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError
        if failure is not None:
            raise failure

    async def drops_keys(self) -> str:
        """How the server drops keys of ours when it is full, empty if it does not."""
        async with self._within(2 * self.address.timeout):
            memory = await self._client.info("memory")
        policy = str(memory.get("maxmemory_policy", ""))
        return policy if policy.startswith("allkeys") else ""

    async def layout_record(
        self, key: str, version: int, shards: int
    ) -> tuple[int, dict[int, int]]:
        """The number of shards of `version`, `shards` if it is new; and of every version."""
        async with self._within(2 * self.address.timeout):
            await self._client.hsetnx(key, str(version), shards)
            found = await self._client.hgetall(key)
        versions = {int(name): int(value) for name, value in found.items()}
        return versions.get(version, shards), versions

    async def forget_layout(self, key: str, version: int) -> None:
        """The version is used no more."""
        async with self._within(2 * self.address.timeout):
            await self._client.hdel(key, str(version))

    async def read_journal(
        self, key: str, after: bytes, count: int, wait: float
    ) -> list[tuple[bytes, bytes]]:
        """Entries after `after`, with their ids; waits up to `wait` seconds for the first."""
        wait = min(wait, self.address.timeout / 2)
        async with self._within(wait + 2 * self.address.timeout):
            found: Any = await self._client.xread(
                {key: after}, count=count, block=max(1, round(wait * 1000))
            )
        if not found:
            return []
        entries = next(iter(found.values()))[0] if isinstance(found, dict) else found[0][1]
        return [(entry_id, fields[b"e"]) for entry_id, fields in entries]


def _path(path: Any) -> str | None:
    return None if path is None else str(path)
