"""Spans of calls, as a collector gets them, by both transports."""

from __future__ import annotations

import asyncio
import struct
import urllib.request
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from kvatlas.v1 import scoring_pb2, scoring_pb2_grpc, tokenization_pb2, tokenization_pb2_grpc
from kvatlas.v1.scoring_pb2 import ScoreManyRequest, ScoreStreamRequest
from kvatlas_client import AsyncClient, Client
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support.models.trained import TEXT, write_tokenizer
from support.services.one_pod import (
    MODEL,
    TOKENS,
    Pods,
    block_stored,
    score_request,
    service_with_pod,
)
from support.services.otlp import Collected, attributes, otlp_collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from support.services.running import RunningService
    from support.stores.servers import StoreProcess

SCORE = "kvatlas.v1.ScoringService/Score"
MANY = "kvatlas.v1.ScoringService/ScoreMany"
STREAM = "kvatlas.v1.ScoringService/ScoreStream"
REQUEST = f"{STREAM} request"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = "1bf7651916cd43dd8448eb211c80319d"
BEGAN = ("kvatlas.v1.FleetService/ListPods",)


def traceparent(trace: str = TRACE, *, sampled: bool = True) -> str:
    return f"00-{trace}-{PARENT}-{'01' if sampled else '00'}"


def caller(trace: str = TRACE, *, sampled: bool = True) -> list[tuple[str, str]]:
    return [("traceparent", traceparent(trace, sampled=sampled)), ("tracestate", "gateway=7")]


def scoring(service: RunningService) -> Any:
    return scoring_pb2_grpc.ScoringServiceStub(service.channel)


def of_trace(collected: Collected, trace: str = TRACE) -> list[Span]:
    return [span for span in collected.spans if span.trace_id.hex() == trace]


@pytest.fixture
def collected() -> Iterator[Collected]:
    with otlp_collector() as collector:
        yield collector


@pytest.fixture(params=["http2", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def traced_service(
    collected: Collected, transport: str = "http2", ratio: float = 0.0, **settings: Any
) -> AsyncIterator[RunningService]:
    """A service with a pod that holds TOKENS, and which sends spans soon."""
    traces = {"endpoint": collected.url, "sample_ratio": ratio, "interval_seconds": 0.01}
    traces |= settings.pop("traces", {})
    grpc_section = {"listen": ["127.0.0.1:0"], "drain_seconds": 0.1, "transport": transport}
    async with service_with_pod(grpc=grpc_section, traces=traces, **settings) as (service, pod):
        await Pods(service, pod).publish(block_stored(TOKENS))
        yield service


async def test_a_call_continues_the_trace_of_its_caller(
    collected: Collected, transport: str
) -> None:
    async with traced_service(collected, transport) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=caller())
        (span,) = await collected.named(SCORE)
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == PARENT
    assert span.trace_state == "gateway=7"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.status.code == Status.STATUS_CODE_UNSET
    found = attributes(span)
    assert found["rpc.system.name"] == "grpc"
    assert found["rpc.method"] == SCORE
    assert found["rpc.response.status_code"] == "OK"
    assert found["gen_ai.request.model"] == MODEL
    assert found["kvatlas.tokens"] == 64
    assert found["kvatlas.blocks"] == found["kvatlas.matched_blocks"] == 4
    assert found["kvatlas.pods"] == found["kvatlas.pods.exact"] == 1
    assert {each.name for each in of_trace(collected)} == {SCORE, "block_keys", "lookup", "score"}
    steps = [each for each in of_trace(collected) if each is not span and each.name != SCORE]
    assert all(step.parent_span_id == span.span_id for step in steps)
    assert all(
        span.start_time_unix_nano <= step.start_time_unix_nano
        and step.end_time_unix_nano <= span.end_time_unix_nano
        for step in steps
    )


async def test_the_resource_names_the_service_and_its_instance(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "stray=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "stray=1")
    (tmp_path / "token").write_text("sesame\n")
    (tmp_path / "headers").write_text("# of a tenant\nX-Scope-OrgID: 42\n")
    traces = {
        "instance": "replica-0",
        "token_file": str(tmp_path / "token"),
        "headers_file": str(tmp_path / "headers"),
    }
    async with traced_service(collected, traces=traces) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=caller())
        await collected.named(SCORE)
        (tmp_path / "token").write_text("changed\n")
        await scoring(service).Score(score_request(TOKENS), metadata=caller())
        await collected.named(SCORE, 2)
    resource = collected.resource()
    assert resource.pop("service.version")
    assert resource == {"service.name": "kvatlas", "service.instance.id": "replica-0"}
    assert set(collected.paths) == {"/v1/traces"}
    assert collected.headers[0]["authorization"] == "Bearer sesame"
    assert collected.headers[-1]["authorization"] == "Bearer changed"
    assert collected.headers[0]["x-scope-orgid"] == "42"
    assert collected.headers[0]["stray"] is None


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_caller_who_does_not_trace_is_followed(
    collected: Collected, transport: str, ratio: float
) -> None:
    async with traced_service(collected, transport, ratio) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=caller(sampled=False))
        many = ScoreManyRequest(requests=[score_request(TOKENS)])
        await scoring(service).ScoreMany(many, metadata=caller(sampled=False))
        requests = [ScoreStreamRequest(id=1, score=score_request(TOKENS))]
        call = scoring(service).ScoreStream(iter(requests), metadata=caller(sampled=False))
        assert [answer.id async for answer in call] == [1]
        await scoring(service).Score(score_request(TOKENS), metadata=caller(OTHER))
    assert {span.name for span in of_trace(collected, OTHER)} >= {SCORE}
    assert not of_trace(collected)
    assert {span.name for span in collected.spans} <= {
        *(SCORE, "block_keys", "lookup", "score"),
        *BEGAN,
    }


@pytest.mark.parametrize(
    "sent",
    [[], [("traceparent", "00-nonsense")], [("traceparent", f"00-{'0' * 32}-{PARENT}-01")]],
    ids=["none", "malformed", "zero"],
)
async def test_a_call_without_a_parent_begins_a_trace_as_often_as_configured(
    collected: Collected, sent: list[tuple[str, str]]
) -> None:
    async with traced_service(collected, ratio=1.0) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=sent)
        (span,) = await collected.named(SCORE)
    assert not span.parent_span_id
    assert span.trace_id.hex() not in {TRACE, OTHER}


async def test_each_prompt_of_a_batch_has_a_span(collected: Collected, transport: str) -> None:
    async with traced_service(collected, transport) as service:
        many = ScoreManyRequest(requests=[score_request(TOKENS[:32]), score_request(TOKENS)])
        await scoring(service).ScoreMany(many, metadata=caller())
        (call,) = await collected.named(MANY)
    prompts = [span for span in of_trace(collected) if span.name == "score_prompt"]
    assert [attributes(prompt)["kvatlas.blocks"] for prompt in prompts] == [2, 4]
    assert {prompt.parent_span_id for prompt in prompts} == {call.span_id}
    lookups = [span for span in of_trace(collected) if span.name == "lookup"]
    assert [each.parent_span_id for each in lookups] == [each.span_id for each in prompts]


async def test_a_request_of_a_stream_has_a_context_of_its_own(
    collected: Collected, transport: str
) -> None:
    async with traced_service(collected, transport) as service:
        call = scoring(service).ScoreStream(metadata=caller())
        own = traceparent(OTHER)
        score = score_request(TOKENS)
        await call.write(ScoreStreamRequest(id=1, score=score, traceparent=own, tracestate="a=b"))
        await call.write(ScoreStreamRequest(id=2, score=score))
        unsampled = traceparent("3" * 32, sampled=False)
        await call.write(ScoreStreamRequest(id=3, score=score, traceparent=unsampled))
        await call.write(ScoreStreamRequest(id=4, score=score_request(TOKENS, model="")))
        assert {(await call.read()).id for _ in range(4)} == {1, 2, 3, 4}
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        (stream,) = await collected.named(STREAM)
    (first, second, fourth) = [span for span in collected.spans if span.name == REQUEST]
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (OTHER, PARENT)
    assert first.trace_state == "a=b"
    assert [link.span_id for link in first.links] == [stream.span_id]
    assert second.trace_id.hex() == fourth.trace_id.hex() == TRACE
    assert second.parent_span_id == stream.span_id
    assert attributes(second)["kvatlas.matched_blocks"] == 4
    assert attributes(fourth)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert stream.parent_span_id.hex() == PARENT
    below = {span.parent_span_id for span in collected.spans if span.name == "lookup"}
    assert below == {first.span_id, second.span_id}
    assert not of_trace(collected, "3" * 32)


async def test_the_client_s_stream_carries_a_context_for_each_request(
    collected: Collected,
) -> None:
    async with traced_service(collected) as service:
        address = service.application.addresses[0]
        async with AsyncClient(address) as client, client.score_stream() as stream:
            for trace in (TRACE, OTHER):
                await stream.score(score_request(TOKENS), traceparent=traceparent(trace))

        def ask() -> None:
            with Client(address) as client, client.score_stream() as stream:
                stream.score(score_request(TOKENS), traceparent=traceparent("3" * 32))

        await asyncio.to_thread(ask)
        spans = await collected.named(REQUEST, 3)
    assert [span.trace_id.hex() for span in spans] == [TRACE, OTHER, "3" * 32]


async def test_one_trace_holds_so_many_requests_of_a_stream(collected: Collected) -> None:
    async with traced_service(collected) as service:
        score = score_request(TOKENS)
        requests = [ScoreStreamRequest(id=number, score=score) for number in range(130)]
        call = scoring(service).ScoreStream(iter(requests), metadata=caller())
        assert len([answer async for answer in call]) == 130
        await collected.named(STREAM)
        page = await asyncio.to_thread(scrape, service)
    assert sum(span.name == REQUEST for span in collected.spans) == 128
    assert 'kvatlas_spans_dropped_total{reason="stream"} 2.0' in page


async def test_a_stream_nobody_traces_is_sampled_request_by_request(collected: Collected) -> None:
    async with traced_service(collected, ratio=1.0) as service:
        requests = [ScoreStreamRequest(id=n, score=score_request(TOKENS)) for n in range(3)]
        assert len([a async for a in scoring(service).ScoreStream(iter(requests))]) == 3
        spans = await collected.named(REQUEST, 3)
        (stream,) = await collected.named(STREAM)
    assert len({span.trace_id for span in [*spans, stream]}) == 4
    assert {link.span_id for span in spans for link in span.links} == {stream.span_id}


async def test_an_error_is_the_server_s_or_the_caller_s(
    collected: Collected, transport: str
) -> None:
    async with traced_service(collected, transport) as service:
        for request in (score_request(TOKENS, model="no such model"), score_request([])):
            with pytest.raises(grpc.aio.AioRpcError):
                await scoring(service).Score(request, metadata=caller())
        service.application.index.pods_of = None  # type: ignore[method-assign, assignment]
        with pytest.raises(grpc.aio.AioRpcError):
            await scoring(service).Score(score_request(TOKENS), metadata=caller())
        spans = await collected.named(SCORE, 3)
    codes = [attributes(span)["rpc.response.status_code"] for span in spans]
    assert codes == ["NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL"]
    failed = Status.STATUS_CODE_ERROR
    assert [span.status.code == failed for span in spans] == [False, False, True]
    assert not any(span.status.message or span.events for span in collected.spans)


async def test_tokenization_has_a_span_that_tells_waiting_from_work(
    collected: Collected, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path)
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with traced_service(collected, models=models) as service:
        request = scoring_pb2.ScoreRequest(model=MODEL, prompt=scoring_pb2.Prompt(text=TEXT[0]))
        await scoring(service).Score(request, metadata=caller())
        (span,) = await collected.named("tokenize")
        (score,) = await collected.named(SCORE)
        stub: Any = tokenization_pb2_grpc.TokenizationServiceStub(service.channel)
        asked = tokenization_pb2.TokenizeRequest(model=MODEL, text=TEXT[0])
        answer = await stub.Tokenize(asked, metadata=caller(OTHER))
        await collected.named("kvatlas.v1.TokenizationService/Tokenize")
    assert span.parent_span_id == score.span_id
    found = attributes(span)
    assert found["kvatlas.tokens"] == len(answer.token_ids)
    assert found["kvatlas.queue_seconds"] >= 0
    lasted = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    assert 0 < found["kvatlas.work_seconds"] <= lasted
    assert "tokenize" in {each.name for each in of_trace(collected, OTHER)}


async def test_nothing_of_a_prompt_is_sent(collected: Collected, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    words, salt = "unmistakable pelican sentence", "salty-secret"
    ids = [305_419_896 + number for number in range(64)]
    async with traced_service(collected, models=models) as service:
        text = scoring_pb2.ScoreRequest(
            model=MODEL, prompt=scoring_pb2.Prompt(text=words), cache_salt=salt
        )
        await scoring(service).Score(text, metadata=caller())
        await scoring(service).Score(score_request(ids, ("hash-of-image", 3, 9)), metadata=caller())
        chat = scoring_pb2.Prompt(chat_completion=f'{{"messages": "{words}"}}')
        bad = scoring_pb2.ScoreRequest(model=MODEL, prompt=chat)
        with pytest.raises(grpc.aio.AioRpcError):
            await scoring(service).Score(bad, metadata=caller())
        await collected.named(SCORE, 3)
        await collected.named("tokenize", 2)
    sent = b"".join(collected.bodies)
    secrets = [*words.split(), salt, "hash-of-image"]
    secrets += [str(ids[0]), str(ids[-1]), f"{ids[0]:x}"]
    assert [secret for secret in secrets if secret.encode() in sent] == []
    assert struct.pack("<I", ids[0]) not in sent
    assert MODEL.encode() in sent  # what is sent is what was looked through


def scrape(service: RunningService, accept: str = "text/plain") -> str:
    url = f"http://127.0.0.1:{service.application.metrics_port}/metrics"
    request = urllib.request.Request(url, headers={"accept": accept})
    with urllib.request.urlopen(request) as answer:
        page: bytes = answer.read()
    return page.decode()


async def test_histograms_have_the_traces_of_calls_as_exemplars(collected: Collected) -> None:
    async with traced_service(collected) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=caller())
        own = ScoreStreamRequest(id=1, score=score_request(TOKENS), traceparent=traceparent(OTHER))
        assert [a.id async for a in scoring(service).ScoreStream(iter([own]))] == [1]
        await collected.named(REQUEST)
        page = await asyncio.to_thread(scrape, service, "application/openmetrics-text")
        plain = await asyncio.to_thread(scrape, service)
    parse: Any = text_string_to_metric_families
    found = {
        (family.name, sample.labels.get("method"), sample.exemplar.labels["trace_id"])
        for family in parse(page)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {
        ("kvatlas_rpc_duration_seconds", "Score", TRACE),
        ("kvatlas_stream_request_duration_seconds", "ScoreStream", OTHER),
        ("grpc_server_handling_seconds", None, TRACE),
    }
    assert TRACE not in plain


async def test_log_lines_of_a_traced_call_name_its_trace(
    collected: Collected, capsys: pytest.CaptureFixture[str]
) -> None:
    async with traced_service(collected) as service:
        service.application.index.pods_of = None  # type: ignore[method-assign, assignment]
        for metadata in (caller(), []):
            with pytest.raises(grpc.aio.AioRpcError):
                await scoring(service).Score(score_request(TOKENS), metadata=metadata)
    printed = capsys.readouterr()
    lines = [line for line in (printed.out + printed.err).splitlines() if TRACE in line]
    assert len(lines) == 1


async def test_a_lookup_in_the_store_is_told_from_one_in_memory(
    collected: Collected, redis: StoreProcess
) -> None:
    store = {"url": redis.url, "namespace": "traces", "copy_blocks": False}
    async with traced_service(collected, store=store) as service:
        await scoring(service).Score(score_request(TOKENS), metadata=caller())
        (span,) = await collected.named("lookup")
    assert attributes(span)["kvatlas.lookup"] == "store"


async def test_a_long_prompt_and_a_late_one_say_so(collected: Collected, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    models = [{"name": MODEL, "tokenizer": str(tmp_path)}]
    async with traced_service(collected, models=models) as service:
        long = score_request([7] * 200_000)
        await scoring(service).Score(long, metadata=caller())
        (span,) = await collected.named("block_keys")
        late = scoring_pb2.ScoreRequest(
            model=MODEL, prompt=scoring_pb2.Prompt(text=TEXT[0] * 20_000), budget_ms=1
        )
        await scoring(service).Score(late, metadata=caller(OTHER))
        await collected.until(lambda got: any(s.name == SCORE for s in of_trace(got, OTHER)))
    assert attributes(span)["kvatlas.tokens"] == 200_000
    (score,) = [span for span in of_trace(collected, OTHER) if span.name == SCORE]
    assert attributes(score)["kvatlas.partial"] == "STEP_TOKENIZE"
    (tokenize,) = [span for span in of_trace(collected, OTHER) if span.name == "tokenize"]
    assert attributes(tokenize)["error.type"] == "CancelledError"
