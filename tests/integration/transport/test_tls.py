"""Whatever strangers do instead of TLS, nothing of them is left and honest callers are answered."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from support.certificates import Authority
from support.clients.http2_peer import PREFACE, SETTINGS, frame
from support.deadlines import DEADLINE_SECONDS
from support.services.echo import EchoServer, echo_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

HANDSHAKE_SECONDS = 5.0  # also of honest clients, on a busy machine
HELLO_BYTES = 100  # of a ClientHello at least


@asynccontextmanager
async def tls_server(folder: Path, **settings: Any) -> AsyncIterator[tuple[EchoServer, Path]]:
    """A listener that speaks TLS, and the authority of its certificate."""
    authority = Authority(folder, "ours")
    chain, key = folder / "tls.crt", folder / "tls.key"
    authority.issue(chain, key)
    files = {"certificate_file": str(chain), "key_file": str(key)}
    seconds = {"handshake_seconds": HANDSHAKE_SECONDS}
    async with echo_server("http2", **files, **{**seconds, **settings}) as server:
        yield server, authority.file


@asynccontextmanager
async def asking(server: EchoServer, authority: Path) -> AsyncIterator[list[float]]:
    """Calls all the time, on new connections and an old one; how long each took, in seconds."""
    loop, taken = asyncio.get_running_loop(), list[float]()
    own = [("grpc.use_local_subchannel_pool", 1)]
    known = grpc.ssl_channel_credentials(await asyncio.to_thread(authority.read_bytes))
    port = server.address.rpartition(":")[2]

    async def ask() -> None:
        async with grpc.aio.secure_channel(f"localhost:{port}", known, options=own) as old:
            while True:
                async with grpc.aio.secure_channel(f"localhost:{port}", known, options=own) as new:
                    for channel in (old, new):
                        began = loop.time()
                        unary: Any = channel.unary_unary("/test.Echo/Unary")
                        assert await unary(b"x", timeout=DEADLINE_SECONDS) == b"x"
                        taken.append(loop.time() - began)

    task = asyncio.create_task(ask())
    try:
        yield taken
        assert not task.done() or task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def open_files() -> int:
    """How many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def open_here(server: EchoServer) -> tuple[int, int, int]:
    """Connections that are counted and that are known, and handshakes."""
    listener = server.server._transport._server  # type: ignore[union-attr]
    return listener._counts.total(), len(listener._connections), len(listener._handshakes)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_all_are_gone(server: EchoServer, files: int) -> None:
    """Wait until no connection is left, and no more files are open than these."""
    await until(lambda: open_here(server) == (0, 0, 0) and open_files() <= files)


class Stranger:
    """Something that a client does to a port that speaks TLS, chosen by a generator."""

    KINDS = (
        "garbage",
        "plain",
        "cut",
        "silent",
        "mutated",
        "no protocol",
        "http/1.1",
        "TLS 1.2",
        "reset",
    )

    def __init__(self, generator: random.Random, address: str, authority: Path) -> None:
        self._random = generator
        self._host, _, self._port = address.rpartition(":")
        self._authority = authority

    async def act(self) -> None:
        """Do it, and leave."""
        kind = self._random.choice(self.KINDS)
        with suppress(OSError, asyncio.IncompleteReadError):
            if kind in {"no protocol", "http/1.1", "TLS 1.2"}:
                await self._speak_tls(kind)
            else:
                await self._break_tls(kind)

    async def _break_tls(self, kind: str) -> None:
        hello = self._hello()
        cut = self._random.randrange(1, len(hello))
        octets = {
            "garbage": self._random.randbytes(self._random.choice([1, 5, 100, 20_000])),
            "plain": PREFACE + frame(SETTINGS, 0, 0),
            "cut": hello[:cut],
            "silent": hello[:cut] if self._random.random() < 0.7 else b"",
            "mutated": hello[:cut] + self._random.randbytes(3) + hello[cut + 3 :],
            "reset": hello,
        }[kind]
        reader, writer = await asyncio.open_connection(self._host, int(self._port))
        try:
            writer.write(octets)
            if kind == "reset":
                await reader.read(1)
                linger = (1).to_bytes(4, "little") + bytes(4)
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif kind in {"plain", "silent", "garbage", "mutated"}:
                with suppress(TimeoutError):
                    async with asyncio.timeout(3 * HANDSHAKE_SECONDS):
                        while await reader.read(65536):
                            pass
        finally:
            writer.close()

    async def _speak_tls(self, kind: str) -> None:
        context = ssl.create_default_context(cafile=str(self._authority))
        if kind == "TLS 1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        if kind != "no protocol":
            context.set_alpn_protocols(["http/1.1" if kind == "http/1.1" else "h2"])
        reader, writer = await asyncio.open_connection(
            "localhost", int(self._port), ssl=context, ssl_shutdown_timeout=1
        )
        try:
            said = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if kind == "http/1.1" else PREFACE
            writer.write(said + frame(SETTINGS, 0, 0))
            await reader.read(9)
            if self._random.random() < 0.5:
                writer.transport.abort()
        finally:
            writer.close()

    def _hello(self) -> bytes:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2"])
        with suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
        hello = outgoing.read()
        assert len(hello) > HELLO_BYTES
        return hello


async def harass(tmp_path: Path, seed: int, strangers: int, at_once: int) -> None:
    """Let strangers do what a seed says while an honest client calls."""
    generator, room = random.Random(seed), asyncio.Semaphore(at_once)
    async with tls_server(tmp_path, connections=at_once + 20) as (server, authority):

        async def act() -> None:
            async with room:
                await Stranger(generator, server.address, authority).act()

        async with asking(server, authority) as taken:
            pass  # what the client needs once is there then
        await until(lambda: open_here(server) == (0, 0, 0))
        files, tasks = open_files(), len(asyncio.all_tasks())
        async with asking(server, authority) as taken:
            await asyncio.gather(*(act() for _ in range(strangers)))
        assert len(taken) > 3
        await until_all_are_gone(server, files)
        assert len(asyncio.all_tasks()) <= tasks


@pytest.mark.parametrize("seed", range(3))
async def test_strangers_leave_nothing_behind(tmp_path: Path, seed: int) -> None:
    await harass(tmp_path, seed, strangers=60, at_once=20)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
async def test_many_strangers_leave_nothing_behind(tmp_path: Path, seed: int) -> None:
    await harass(tmp_path, seed, strangers=600, at_once=50)


@pytest.mark.parametrize("silent", [200, pytest.param(1000, marks=pytest.mark.soak)])
async def test_handshakes_that_do_not_go_on_hold_up_nobody(tmp_path: Path, silent: int) -> None:
    async with tls_server(tmp_path, connections=silent + 50) as (server, authority):
        host, _, port = server.address.rpartition(":")
        async with asking(server, authority) as taken:
            opened = [await asyncio.open_connection(host, int(port)) for _ in range(silent)]
            for reader, _ in opened:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    assert not await reader.read()  # the server closes it in time
            for _, writer in opened:
                writer.close()
        assert len(taken) > 3
        await until(lambda: open_here(server) == (0, 0, 0))
        assert server.closed["handshake"] >= silent


async def test_a_listener_that_stops_leaves_no_handshake_behind(tmp_path: Path) -> None:
    files = open_files()
    async with tls_server(tmp_path, handshake_seconds=60) as (server, _):
        host, _, port = server.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        await until(lambda: open_here(server)[2] == len(opened))
        await server.server.stop()
        for reader, writer in opened:
            with suppress(ConnectionError):
                assert not await reader.read()
            writer.close()
    await until(lambda: open_files() <= files)


async def test_a_handshake_that_has_not_begun_leaves_no_socket(tmp_path: Path) -> None:
    async with tls_server(tmp_path) as (server, _):
        transport: Any = server.server._transport
        listener = transport._server
        host, port = server.address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as client:
            listener._made._accept(
                listener._made._listening[0]
            )  # in this very round, nothing else runs
            (handshake,) = listener._handshakes
            handshake.cancel()
            await asyncio.wait([handshake])
            await until(lambda: open_here(server) == (0, 0, 0))
            client.settimeout(DEADLINE_SECONDS)
            assert await asyncio.to_thread(client.recv, 1) == b""  # it is closed
