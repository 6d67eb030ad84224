"""Streams of both clients: many requests under way, answered once each, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1.scoring_pb2 import ScoreStreamResponse
from kvatlas_client import (
    Client,
    DeadlineError,
    InvalidRequestError,
    KvatlasError,
    NotFoundError,
    Retry,
    score_request,
)
from support.clients.either import KINDS, either_client, either_stream
from support.clients.flaky_server import echo, flaky_server, not_found
from support.deadlines import DEADLINE_SECONDS
from support.ports import free_port
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    service_with_pod,
)

if TYPE_CHECKING:
    from kvatlas.v1.scoring_pb2 import ScoreRequest, ScoreStreamRequest

both = pytest.mark.parametrize("kind", KINDS)


def of_length(tokens: int) -> ScoreRequest:
    return score_request(MODEL, range(tokens))


@both
@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_each_of_many_requests_gets_its_own_answer(kind: str, transport: str) -> None:
    settings = {"listen": ["127.0.0.1:0"], "transport": transport}
    async with service_with_pod(grpc=settings, models=[{"name": MODEL}]) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:32])))
        await service.until_applied({(POD, 0): 0})
        async with (
            either_client(kind, service.application.addresses[0]) as client,
            either_stream(client, most_in_flight=20) as stream,
        ):
            asked = [stream.score(score_request(MODEL, TOKENS[:n] or [1])) for n in range(60)]
            answers = await asyncio.gather(*asked)
            assert [each.total_tokens for each in answers] == [1, *range(1, 60)]
            matched = [each.pods[0].matched_blocks for each in answers]
            assert matched == [min(2, n // 16) for n in range(60)]
            with pytest.raises(NotFoundError) as unknown:
                await stream.score(score_request("nobody's", TOKENS))
            assert unknown.value.reason == "MODEL_UNKNOWN"
            with pytest.raises(InvalidRequestError):
                await stream.score(score_request(MODEL, []))
            assert (await stream.score(of_length(16))).total_blocks == 1


@both
@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_a_stream_outlives_the_service_that_it_began_with(kind: str, transport: str) -> None:
    """The service drains and another one takes its address, while requests keep coming."""
    address = f"127.0.0.1:{free_port()}"
    settings = {"listen": [address], "transport": transport, "drain_seconds": 0.1}
    answered = asyncio.Semaphore(0)
    is_over = False

    async def ask(stream: Any) -> None:
        while not is_over:
            assert (await stream.score(of_length(40))).total_tokens == 40
            answered.release()

    async with (
        either_client(kind, address) as client,
        either_stream(client) as stream,
        asyncio.TaskGroup() as asking,
    ):
        for life in range(3):
            async with service_with_pod(grpc=settings, models=[{"name": MODEL}]):
                if life == 0:
                    tasks = [asking.create_task(ask(stream)) for _ in range(8)]
                async with asyncio.timeout(DEADLINE_SECONDS):
                    for _ in range(100):
                        await answered.acquire()
                if life == 2:
                    is_over = True
                    await asyncio.wait(tasks)


@both
async def test_what_was_not_answered_is_repeated_and_nothing_else(kind: str) -> None:
    async with (
        flaky_server() as server,
        either_client(kind, server.address) as client,
        either_stream(client) as stream,
    ):
        server.answer = lambda request: echo(request) if request.id % 2 else None
        asked = []
        for n in range(6):
            asked.append(asyncio.create_task(stream.score(of_length(10 + n))))
            await server.until_streamed(n + 1)
        even = {message.id: message for message in server.messages[0] if not message.id % 2}
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*asked[::2])
        server.answer = echo
        server.break_streams()
        answers = await asyncio.gather(*asked)
        assert [each.total_tokens for each in answers] == [10 + n for n in range(6)]
        repeated = server.messages[-1]
        assert [message.id for message in repeated] == sorted(even)
        for message in repeated:
            assert message.score == even[message.id].score
            assert 0 < message.timeout_ms <= even[message.id].timeout_ms


@both
async def test_a_stream_goes_on_trying_for_as_long_as_the_request_may_take(kind: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    retry = Retry(longest_seconds=0.05)
    async with (
        either_client(kind, address, retry=retry) as client,
        either_stream(client) as stream,
    ):
        with pytest.raises(DeadlineError, match="the stream was lost: UNAVAILABLE"):
            await stream.score(of_length(1), timeout=0.5)
        asked = asyncio.create_task(stream.score(of_length(3)))
        async with flaky_server(address) as server:
            server.refusals = 3
            assert (await asked).total_tokens == 3
            assert len(server.calls) == 4


@both
async def test_a_refusal_of_the_stream_fails_its_requests_and_the_next_one_tries_again(
    kind: str,
) -> None:
    async with flaky_server() as server:
        server.refusals, server.code = 10**6, grpc.StatusCode.UNAUTHENTICATED
        async with either_client(kind, server.address) as client, either_stream(client) as stream:
            await server.until(lambda: len(server.calls) == 1)  # it is opened before it is used
            for _ in range(3):
                with pytest.raises(KvatlasError) as caught:
                    await stream.score(of_length(5))
                assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED
            server.refusals = 0
            assert (await stream.score(of_length(5))).total_tokens == 5


@both
async def test_a_late_answer_is_an_error_and_harms_no_other_request(kind: str) -> None:
    held: list[ScoreStreamRequest] = []

    def hold_long(request: ScoreStreamRequest) -> ScoreStreamResponse | None:
        if request.WhichOneof("action") == "cancel":
            return echo(held[0])  # too late
        if len(request.score.prompt.packed_token_ids) > 400:
            held.append(request)
            return None
        return echo(request)

    async with (
        flaky_server() as server,
        either_client(kind, server.address) as client,
        either_stream(client) as stream,
    ):
        server.answer = hold_long
        with pytest.raises(DeadlineError, match="no answer in time"):
            await stream.score(of_length(200), timeout=0.2)
        await server.until(lambda: any(each.cancel for each in server.messages[0]))
        cancelled = [each.id for each in server.messages[0] if each.cancel]
        assert cancelled == [held[0].id]
        assert 0 < held[0].timeout_ms <= 200
        for tokens in range(1, 30):
            assert (await stream.score(of_length(tokens))).total_tokens == tokens


@both
async def test_requests_beyond_the_room_wait_for_it_and_no_longer_than_they_may(kind: str) -> None:
    async with (
        flaky_server() as server,
        either_client(kind, server.address) as client,
        either_stream(client, most_in_flight=2) as stream,
    ):
        server.answer = lambda _: None
        held = [asyncio.create_task(stream.score(of_length(n))) for n in (1, 2)]
        await server.until_streamed(2)
        with pytest.raises(DeadlineError):
            await stream.score(of_length(3), timeout=0.1)
        assert len(server.messages[0]) == 2
        server.answer = echo
        server.break_streams()
        assert [each.total_tokens for each in await asyncio.gather(*held)] == [1, 2]
        answers = await asyncio.gather(*(stream.score(of_length(n)) for n in range(50)))
        assert [each.total_tokens for each in answers] == list(range(50))


@both
async def test_routings_and_outcomes_go_over_the_stream(kind: str) -> None:
    async with (
        flaky_server() as server,
        either_client(kind, server.address) as client,
        either_stream(client) as stream,
    ):
        assert (await stream.record_routing(b"handle", POD, rank=0)).speculative_blocks == 6
        assert (await stream.report_outcome(b"handle", 48, pod=POD)).promised_tokens == 48
        routing, outcome = server.messages[0]
        assert routing.record_routing.HasField("rank")
        assert outcome.report_outcome.pod == POD
        server.answer = lambda request: ScoreStreamResponse(id=request.id, error=not_found())
        with pytest.raises(NotFoundError) as caught:
            await stream.report_outcome(b"handle", 48)
        assert (caught.value.reason, caught.value.limit) == ("MODEL_UNKNOWN", "limits.some")
        server.answer = lambda request: ScoreStreamResponse(id=request.id)
        with pytest.raises(KvatlasError, match="UNIMPLEMENTED"):
            await stream.score(of_length(1))


@both
async def test_requests_of_a_stream_that_is_closed_fail(kind: str) -> None:
    async with flaky_server() as server, either_client(kind, server.address) as client:
        server.answer = lambda _: None
        async with either_stream(client) as stream:
            asked = asyncio.create_task(stream.score(of_length(1)))
            await server.until_streamed(1)
        with pytest.raises(KvatlasError) as caught:
            await asked
        assert caught.value.code is grpc.StatusCode.CANCELLED
        with pytest.raises(KvatlasError, match="CANCELLED"):
            await stream.score(of_length(1))


@both
async def test_a_stream_of_a_closed_client_says_so(kind: str) -> None:
    async with (
        flaky_server() as server,
        either_client(kind, server.address) as client,
        either_stream(client) as stream,
    ):
        assert await stream.score(of_length(1))
        await client.close()
        for _ in range(2):
            with pytest.raises(KvatlasError):
                await stream.score(of_length(1))


async def test_a_coroutine_that_is_cancelled_gives_its_request_up() -> None:
    async with (
        flaky_server() as server,
        either_client("async", server.address) as client,
        either_stream(client) as stream,
    ):
        server.answer = lambda _: None
        asked = asyncio.create_task(stream.score(of_length(1)))
        await server.until_streamed(1)
        asked.cancel()
        await asyncio.wait([asked])
        await server.until(lambda: server.messages[0][-1].cancel)
        assert server.messages[0][-1].id == server.messages[0][0].id


async def test_an_answer_can_be_waited_for_later_or_given_up() -> None:
    async with flaky_server() as server:
        server.answer = lambda request: None if request.id == 2 else echo(request)

        def submit() -> None:
            with Client(server.address) as client, client.score_stream() as stream:
                first, second = stream.submit(of_length(4)), stream.submit(of_length(5))
                assert first.result().total_tokens == 4
                assert first.done()
                assert not second.done()
                second.cancel()
                with pytest.raises(DeadlineError):
                    second.result()
                assert first.result().total_tokens == 4

        await asyncio.to_thread(submit)
