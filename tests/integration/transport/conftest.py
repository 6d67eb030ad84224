"""Every test of this folder runs over each transport, unless it is about one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.services.echo import echo_server, until_grpc_is_idle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.services.echo import EchoServer


@pytest.fixture(params=["http2", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
async def _one_event_loop() -> AsyncIterator[None]:
    """The tests of a module share an event loop: gRPC's core tells it of calls of earlier tests."""
    yield
    await until_grpc_is_idle()


@pytest.fixture
async def server(transport: str, request: pytest.FixtureRequest) -> AsyncIterator[EchoServer]:
    """A listener as `@pytest.mark.settings(...)` configures it."""
    marker = request.node.get_closest_marker("settings")
    async with echo_server(transport, **(marker.kwargs if marker else {})) as running:
        yield running
    if transport == "grpcio":
        await until_grpc_is_idle()
