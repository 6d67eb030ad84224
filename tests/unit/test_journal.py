"""The journal of one shard: what was lost of it is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.stores.servers import StoreProcess, patient_address, server_program, store_process

from store import Server, Store, StoreError
from store.read.journal import Journal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEY = "kvatlas:3:{0}:journal"


@pytest.fixture(scope="module")
def server() -> Iterator[StoreProcess]:
    if server_program("valkey") is None:
        pytest.skip("there is no valkey-server on this machine")
    with store_process("valkey") as process:
        yield process


@pytest.fixture
async def journal(server: StoreProcess) -> AsyncIterator[Journal]:
    """A journal of two entries, of which the first was read."""
    with server.client() as client:
        client.flushall()
        client.xadd(KEY, {"e": b"one"}, id="1-0")
        client.xadd(KEY, {"e": b"two"}, id="2-0")
    async with Server(patient_address(server.url)) as connected:
        read = Journal(Store(connected), 0)
        read.position = b"1-0"
        yield read


async def test_entries_after_the_position_are_read(journal: Journal) -> None:
    assert await journal.read() == [(b"2-0", b"two")]


async def test_a_journal_that_was_replaced_is_malformed(
    server: StoreProcess, journal: Journal
) -> None:
    with server.client() as client:
        client.delete(KEY)
        client.xadd(KEY, {"e": b"three"}, id="3-0")
    with pytest.raises(StoreError) as raised:
        await journal.read()
    assert raised.value.kind == "malformed"


async def test_a_journal_that_has_dropped_the_position_for_its_length_is_read_on(
    server: StoreProcess, journal: Journal
) -> None:
    with server.client() as client:
        client.xtrim(KEY, maxlen=1, approximate=False)
    assert await journal.read() == [(b"2-0", b"two")]


async def test_a_journal_that_can_take_no_more_entries_is_deleted(
    server: StoreProcess, journal: Journal
) -> None:
    with server.client() as client:
        client.xadd(KEY, {"e": b"last"}, id="18446744073709551615-1")
        with pytest.raises(StoreError) as raised:
            await journal.read()
        assert not client.exists(KEY)
    assert raised.value.kind == "malformed"


async def test_an_entry_without_our_field_is_malformed(
    server: StoreProcess, journal: Journal
) -> None:
    with server.client() as client:
        client.xadd(KEY, {"f": b"three"}, id="3-0")
    with pytest.raises(StoreError) as raised:
        await journal.read()
    assert raised.value.kind == "malformed"


async def test_after_a_failure_an_entry_that_is_too_long_is_left_out(
    server: StoreProcess, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that takes longer to read than a call may take is not asked for again."""

    async def too_slow(*_: object) -> list[tuple[bytes, bytes]]:
        raise StoreError("timeout", "too slow")

    monkeypatch.setattr("store.read.journal.MAX_BYTES", 1000)
    with server.client() as client:
        client.xadd(KEY, {"e": bytes(2000)}, id="3-0")
    with monkeypatch.context() as patched:
        patched.setattr(Server, "read_journal", too_slow)
        with pytest.raises(StoreError, match="too slow"):
            await journal.read()
    assert await journal.read() == [(b"2-0", b"two"), (b"3-0", b"")]
