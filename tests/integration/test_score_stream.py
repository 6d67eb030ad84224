"""ScoreStream over a real channel: each request is answered as Score would, and harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc
from kvatlas.v1.scoring_pb2 import ScoreRequest, ScoreStreamRequest, ScoreStreamResponse
from support.deadlines import DEADLINE_SECONDS
from support.services.one_pod import (
    MODEL,
    TOKENS,
    block_stored,
    frame,
    score_request,
    service_with_pod,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.services.running import RunningService

METHOD = "/kvatlas.v1.ScoringService/ScoreStream"
TEXT = ScoreRequest(model=MODEL, prompt=scoring_pb2.Prompt(text="slow"))
HONEST = score_request(TOKENS)


class SlowTokenizers:
    """Takes the place of the tokenizers: every text waits until it is released."""

    def __init__(self) -> None:
        self.waiting = self.given_up = 0
        self.released = asyncio.Event()
        self._changed = asyncio.Event()

    async def tokenize(self, *_: object) -> Any:
        self.waiting += 1
        self._changed.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        finally:
            self.waiting -= 1
            self._changed.set()
        raise NotImplementedError

    async def until(self, waiting: int) -> None:
        """Wait until so many texts wait."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.waiting != waiting:
                self._changed.clear()
                await self._changed.wait()


def own_channel(service: RunningService) -> grpc.aio.Channel:
    """A channel with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(service.application.addresses[0], options=options)


class Stream:
    """A stream, and the answers that have come."""

    def __init__(self, channel: grpc.aio.Channel, **options: Any) -> None:
        stub = scoring_pb2_grpc.ScoringServiceStub(channel)
        self.call: Any = stub.ScoreStream(**options)

    async def ask(self, number: int, request: ScoreRequest, **fields: Any) -> None:
        await self.call.write(ScoreStreamRequest(id=number, score=request, **fields))

    async def cancel(self, number: int) -> None:
        await self.call.write(ScoreStreamRequest(id=number, cancel=True))

    async def answer(self) -> ScoreStreamResponse:
        async with asyncio.timeout(DEADLINE_SECONDS):
            answer = await self.call.read()
        assert isinstance(answer, ScoreStreamResponse)
        return answer

    async def end(self) -> None:
        """Send no more, and see that no answer is left and all is well."""
        await self.call.done_writing()
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await self.call.read() is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK


@asynccontextmanager
async def slow_service(
    monkeypatch: pytest.MonkeyPatch, **limits: Any
) -> AsyncIterator[tuple[RunningService, SlowTokenizers]]:
    """A service that holds the first block of TOKENS, and whose texts wait."""
    async with service_with_pod(models=[{"name": MODEL}], limits=limits) as (service, pod):
        slow = SlowTokenizers()
        real = service.application.tokenizers.tokenize

        async def tokenize(model: str, prompt: Any, timeout: float | None = None) -> Any:
            if hasattr(prompt, "text"):
                return await slow.tokenize()
            return await real(model, prompt, timeout)

        monkeypatch.setattr(service.application.tokenizers, "tokenize", tokenize)
        pod.send(frame(0, block_stored(TOKENS[:16])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        yield service, slow


REQUESTS = [
    score_request(TOKENS),
    score_request(TOKENS[:20]),
    score_request(TOKENS, ("image", 3, 4)),
    score_request(TOKENS, cache_salt="salt", lora_name="adapter"),
    score_request(TOKENS, pods=["10.0.0.9:1", "10.0.0.1:8000"], only_holders=True),
    score_request(TOKENS[1:], only_holders=True),
    score_request(TOKENS, max_pods=1),
    score_request([7] * 70_000),
]
REFUSED = {
    "REQUEST_INVALID": ScoreRequest(model=MODEL),
    "MODEL_UNKNOWN": score_request(TOKENS, model="nobody's"),
    "LIMIT_EXCEEDED": score_request(TOKENS, pods=[f"pod {n}" for n in range(20_000)]),
    "TOKENIZER_MISSING": TEXT,
}


async def test_each_request_is_answered_as_a_call_would_be() -> None:
    async with service_with_pod(models=[{"name": MODEL}]) as (service, pod):
        pod.send(frame(0, block_stored(TOKENS[:32])))
        await service.until_applied({("10.0.0.1:8000", 0): 0})
        stub = scoring_pb2_grpc.ScoringServiceStub(service.channel)
        stream = Stream(service.channel)
        numbers = [2**64 - 1, 0, *range(1, 100)]
        asked = dict(zip(numbers, [*REQUESTS * 3, *REFUSED.values()], strict=False))
        for number, request in asked.items():
            await stream.ask(number, request)
        answers = {answer.id: answer for answer in [await stream.answer() for _ in asked]}
        assert answers.keys() == asked.keys()
        for number, request in asked.items():
            answer = answers[number]
            many = scoring_pb2.ScoreManyRequest(requests=[HONEST, request])
            try:
                assert answer.response == await stub.Score(request)
                assert answer.response == (await stub.ScoreMany(many)).responses[1]
            except grpc.aio.AioRpcError as error:
                assert answer.error.code == error.code().value[0]
                assert answer.error.message == error.details()
                if answer.error.reason != "LIMIT_EXCEEDED":  # too large to be decoded
                    assert answer.error == (await stub.ScoreMany(many)).errors[1]
        reasons = [answers[number].error.reason for number in asked if answers[number].error.code]
        assert reasons == list(REFUSED)
        await stream.end()


async def test_a_slow_text_holds_no_other_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch) as (service, slow):
        stream = Stream(service.channel)
        await stream.ask(1, TEXT)
        for number in range(2, 50):
            await stream.ask(number, HONEST)
            answer = await stream.answer()
            assert (answer.id, answer.response.pods[0].matched_blocks) == (number, 1)
        assert slow.waiting == 1
        slow.released.set()
        answer = await stream.answer()
        assert (answer.id, answer.error.reason) == (1, "INTERNAL")
        await stream.end()


async def test_a_request_ends_at_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch) as (service, slow):
        stream = Stream(service.channel, timeout=DEADLINE_SECONDS)
        await stream.ask(1, TEXT)
        await stream.ask(2, TEXT, timeout_ms=20)
        answer = await stream.answer()
        assert (answer.id, answer.error.reason) == (2, "DEADLINE_OVER")
        assert answer.error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
        assert (slow.waiting, slow.given_up) == (1, 1)
        stream.call.cancel()
        await slow.until(0)


async def test_a_cancelled_request_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch) as (service, slow):
        stream = Stream(service.channel)
        await stream.ask(1, TEXT)
        await stream.ask(2, TEXT)
        await slow.until(2)
        await stream.cancel(1)
        await stream.cancel(77)  # not under way
        await slow.until(1)
        await stream.ask(1, HONEST)  # the number is free again
        assert (await stream.answer()).id == 1
        await stream.cancel(2)
        await stream.end()


async def test_requests_are_counted_by_how_they_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch) as (service, slow):
        stream = Stream(service.channel)
        await stream.ask(1, TEXT)
        await slow.until(1)
        await stream.ask(2, TEXT, timeout_ms=20)
        await stream.answer()
        await stream.ask(3, HONEST)
        await stream.answer()
        await stream.call.write(ScoreStreamRequest(id=4))
        await stream.answer()
        await stream.cancel(1)
        await stream.end()
        url = f"http://127.0.0.1:{service.application.metrics_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        for status in ("OK", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "CANCELLED"):
            labels = f'method="ScoreStream",status="{status}"'
            assert f"kvatlas_stream_request_duration_seconds_count{{{labels}}} 1.0" in page
        assert "kvatlas_stream_requests_under_way 0.0" in page


async def test_what_cannot_be_begun_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch, concurrent_calls=2) as (service, slow):
        stream = Stream(service.channel)
        await stream.ask(1, TEXT)
        await slow.until(1)
        await stream.ask(1, HONEST)
        assert "still under way" in (await stream.answer()).error.message
        await stream.ask(2, HONEST)  # the stream itself is one call, the text the second
        assert (await stream.answer()).error.reason == "TOO_MANY_CALLS"
        await stream.call.write(ScoreStreamRequest(id=3))
        assert "set one of" in (await stream.answer()).error.message
        await stream.cancel(1)
        await stream.end()


async def test_requests_beyond_the_limit_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with slow_service(monkeypatch, stream_requests=2) as (service, slow):
        stream, other = Stream(service.channel), Stream(service.channel)
        for number in range(4):
            await stream.ask(number, TEXT)
        await stream.ask(4, HONEST)
        for number in range(20):  # another stream goes on
            await other.ask(number, HONEST)
            assert (await other.answer()).id == number
        await slow.until(2)
        slow.released.set()
        assert {(await stream.answer()).id for _ in range(5)} == set(range(5))
        await stream.end()
        await other.end()


async def test_a_caller_who_does_not_read_waits_for_itself_alone() -> None:
    async with service_with_pod(models=[{"name": MODEL}]) as (service, _):
        stalled, other = Stream(service.channel), Stream(service.channel)
        long = score_request(TOKENS, pods=[f"{n:0500}" for n in range(400)])  # 200 kB of answer
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for number in range(1000):
                await stalled.ask(number, long)
                sent += 1

        flooding = asyncio.create_task(flood())
        for number in range(300):
            await other.ask(number, HONEST)
            assert (await other.answer()).id == number
        assert sent < 900  # in the buffers of gRPC and of the network, and not beyond
        flooding.cancel()
        stalled.call.cancel()
        await other.end()


@pytest.mark.parametrize("garbage", [b"\xff", b"\x08", b"\x12\x05abc", b"\x12\xff\xff\xff\xff\x0f"])
async def test_garbage_ends_its_stream_alone(
    monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    async with slow_service(monkeypatch) as (service, slow):
        other = Stream(service.channel)
        raw: Any = service.channel.stream_stream(METHOD)()
        await raw.write(ScoreStreamRequest(id=1, score=TEXT).SerializeToString())
        await slow.until(1)
        await raw.write(garbage)
        assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be decoded" in await raw.details()
        await slow.until(0)  # nobody waits for the text any more
        await other.ask(1, HONEST)
        assert (await other.answer()).id == 1
        await other.end()


async def test_a_caller_that_goes_away_leaves_nothing_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with slow_service(monkeypatch, concurrent_calls=4) as (service, slow):
        async with own_channel(service) as channel:
            gone = Stream(channel)
            for number in range(3):
                await gone.ask(number, TEXT)
            await slow.until(3)
        await slow.until(0)
        stream = Stream(service.channel)  # there is room again
        await stream.ask(1, HONEST)
        assert (await stream.answer()).response.total_blocks == 4
        await stream.end()


async def test_a_stream_ends_as_unavailable_when_the_service_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        service, slow = await stack.enter_async_context(slow_service(monkeypatch))
        async with own_channel(service) as channel:
            stream = Stream(channel)
            await stream.ask(1, HONEST)
            await stream.answer()
            await stream.ask(2, TEXT)
            await slow.until(1)
            await stack.aclose()
            assert await stream.call.code() is grpc.StatusCode.UNAVAILABLE
            assert slow.waiting == 0
