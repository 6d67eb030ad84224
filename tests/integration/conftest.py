"""Fixtures of the integration tests: a service with a pod, and a store that tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.services.asking import ASKERS, Asker
from support.services.one_pod import service_with_pod
from support.stores.servers import StoreProcess, server_program, store_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import grpc
    from support.engines.publisher import Publisher
    from support.services.running import RunningService


@pytest.fixture
async def service_and_pod(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[RunningService, Publisher]]:
    """A service as `@pytest.mark.settings(...)` configures it, and a connected pod."""
    marker = request.node.get_closest_marker("settings")
    async with service_with_pod(**(marker.kwargs if marker else {})) as (service, pod):
        yield service, pod


@pytest.fixture
def service(service_and_pod: tuple[RunningService, Publisher]) -> RunningService:
    return service_and_pod[0]


@pytest.fixture
def pod(service_and_pod: tuple[RunningService, Publisher]) -> Publisher:
    return service_and_pod[1]


@pytest.fixture(params=ASKERS)
async def ways(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Asker]]:
    """Makes an asker of one kind, given a channel."""
    made: list[Asker] = []

    def make(channel: grpc.aio.Channel) -> Asker:
        made.append(ASKERS[request.param](channel))
        return made[-1]

    yield make
    for asker in made:
        asker.close()


@pytest.fixture(scope="session")
def redis() -> Iterator[StoreProcess]:
    """A Redis server that all tests share; each uses a namespace of its own."""
    if server_program("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        yield process
