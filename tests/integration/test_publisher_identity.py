"""Who may publish, and for whom: real publishers, some of which are not who they say."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import zmq
import zmq.auth
from support.deadlines import DEADLINE_SECONDS
from support.services.running import local_configuration, running_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.services.running import RunningService

CLEARED = [["AllBlocksCleared"]]


def frame(pod: str, sequence: int = 0, model: str = "m") -> list[bytes]:
    payload = msgpack.packb([1.0, CLEARED, 0])
    return [f"kv@{pod}@{model}".encode(), sequence.to_bytes(8, "big"), payload]


@contextmanager
def publisher(endpoint: str, **options: Any) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            setattr(socket, name, value)
        socket.connect(endpoint)
        yield socket


async def is_subscribed(socket: zmq.Socket[bytes], seconds: float = DEADLINE_SECONDS) -> bool:
    if await asyncio.to_thread(socket.poll, int(seconds * 1000)):
        socket.recv()
        return True
    return False


def bound(**source: Any) -> Any:
    return local_configuration(
        sources=[{"endpoint": "tcp://127.0.0.1:*", "bind": True, **source}], metrics={"listen": ""}
    )


def skipped(service: RunningService) -> dict[str, int]:
    return dict(service.application.listener.router.skipped)


async def test_only_pods_and_models_that_are_allowed_are_listened_to() -> None:
    configuration = bound(allowed_pods=["10.0.*:8000"], allowed_models=["m", "llama-*"])
    async with running_service(configuration) as service:
        with publisher(service.application.endpoints[0]) as socket:
            assert await is_subscribed(socket)
            for pod, model in (
                ("evil:1", "m"),
                ("10.0.0.1:8000", "other"),
                ("10.0.0.1:8000", "llama-3"),
                ("10.0.7.7:8000", "m"),
            ):
                socket.send_multipart(frame(pod, model=model))
            await service.until(lambda pods: ("10.0.7.7:8000", 0) in pods)
            assert set(await service.pods()) == {("10.0.0.1:8000", 0), ("10.0.7.7:8000", 0)}
            assert skipped(service) == {"pod_not_allowed": 1, "model_not_allowed": 1}


async def test_peers_that_are_not_allowed_cannot_connect() -> None:
    async with running_service(bound(allowed_peers=["10.0.0.0/8"])) as service:
        with publisher(service.application.endpoints[0]) as socket:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while skipped(service).get("peer_not_allowed", 0) < 2:  # it tries again
                    await is_subscribed(socket, seconds=0.05)
            socket.send_multipart(frame("a:1"))
            assert not await service.pods()
    async with running_service(bound(allowed_peers=["10.0.0.0/8", "127.0.0.1"])) as service:
        with publisher(service.application.endpoints[0]) as socket:
            assert await is_subscribed(socket)
            assert skipped(service) == {}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, tuple[bytes, bytes]]:
    """Key pairs; those of pod-a and pod-b are known to kvatlas."""
    (tmp_path / "publishers").mkdir()
    pairs = {}
    for name in ("kvatlas", "pod-a", "pod-b", "stranger"):
        public_file, secret_file = zmq.auth.create_certificates(tmp_path, name)
        public, secret = zmq.auth.load_certificate(secret_file)
        assert secret is not None
        pairs[name] = public, secret
        if name.startswith("pod"):
            (tmp_path / "publishers" / f"{name}.key").write_bytes(
                (tmp_path / f"{name}.key").read_bytes()
            )
        assert str(public_file).endswith(".key")
    return pairs


async def test_only_publishers_with_a_known_key_are_listened_to(
    keys: dict[str, tuple[bytes, bytes]], tmp_path: Path
) -> None:
    configuration = bound(
        curve_key_file=str(tmp_path / "kvatlas.key_secret"),
        curve_publishers=str(tmp_path / "publishers"),
    )
    async with running_service(configuration) as service:
        endpoint = service.application.endpoints[0]

        def with_key(name: str) -> Any:
            public, secret = keys[name]
            return publisher(
                endpoint,
                curve_publickey=public,
                curve_secretkey=secret,
                curve_serverkey=keys["kvatlas"][0],
            )

        with with_key("stranger") as stranger, publisher(endpoint) as plain:
            for name in ("pod-a", "pod-b"):
                with with_key(name) as known:
                    assert await is_subscribed(known)
                    known.send_multipart(frame(f"{name}:1"))
                    await service.until(lambda pods, of=(f"{name}:1", 0): of in pods)  # type: ignore[misc]
            assert not stranger.poll(0)
            assert not plain.poll(0)
        assert set(await service.pods()) == {("pod-a:1", 0), ("pod-b:1", 0)}


async def test_a_publisher_that_kvatlas_connects_to_proves_its_key(
    keys: dict[str, tuple[bytes, bytes]], tmp_path: Path
) -> None:
    with (
        zmq.Context() as context,
        context.socket(zmq.XPUB) as honest,
        context.socket(zmq.XPUB) as impostor,
    ):
        for socket, name in ((honest, "pod-a"), (impostor, "stranger")):
            socket.setsockopt(zmq.LINGER, 0)
            socket.curve_publickey, socket.curve_secretkey = keys[name]
            socket.curve_server = True
            socket.bind("tcp://127.0.0.1:*")
        sources = [
            {
                "endpoint": socket.getsockopt_string(zmq.LAST_ENDPOINT),
                "pod": pod,
                "model": "m",
                "rank": 0,
                "curve_key_file": str(tmp_path / "kvatlas.key_secret"),
                "curve_publishers": str(tmp_path / "pod-a.key"),
            }
            for socket, pod in ((honest, "a:1"), (impostor, "b:1"))
        ]
        async with running_service(local_configuration(sources=sources)):
            assert await is_subscribed(honest)
            assert not await is_subscribed(impostor, seconds=0.5)


def relay(
    context: zmq.Context[zmq.Socket[bytes]],
    engine: str,
    endpoint: str,
    keys: dict[str, tuple[bytes, bytes]],
) -> None:
    """The relay of SECURITY.md; it ends with its context."""
    inside, outside = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
    outside.curve_publickey, outside.curve_secretkey = keys["pod-a"]
    outside.curve_serverkey = keys["kvatlas"][0]
    inside.connect(engine)
    outside.connect(endpoint)
    with contextlib.suppress(zmq.ContextTerminated):
        zmq.proxy(inside, outside)
    for socket in (inside, outside):
        socket.close(linger=0)


async def test_an_engine_without_curve_publishes_through_a_relay(
    keys: dict[str, tuple[bytes, bytes]], tmp_path: Path
) -> None:
    configuration = bound(
        curve_key_file=str(tmp_path / "kvatlas.key_secret"),
        curve_publishers=str(tmp_path / "publishers"),
    )
    async with running_service(configuration) as service:
        with zmq.Context() as context, context.socket(zmq.XPUB) as engine:
            engine.setsockopt(zmq.LINGER, 0)
            engine.bind("tcp://127.0.0.1:*")
            inner: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            address = engine.getsockopt_string(zmq.LAST_ENDPOINT)
            endpoint = service.application.endpoints[0]
            thread = threading.Thread(target=relay, args=(inner, address, endpoint, keys))
            thread.start()
            try:
                assert await is_subscribed(engine)
                engine.send_multipart(frame("pod-a:1"))
                await service.until(lambda pods: ("pod-a:1", 0) in pods)
            finally:
                await asyncio.to_thread(inner.term)
                thread.join()
