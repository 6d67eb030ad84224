"""The metrics of services that have seen something of everything."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
from kvatlas.v1 import routing_pb2, routing_pb2_grpc, scoring_pb2, scoring_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from support.deadlines import DEADLINE_SECONDS
from support.engines.publisher import Publisher
from support.models.trained import write_tokenizer
from support.ports import free_port
from support.services.one_pod import (
    MODEL,
    POD,
    TOKENS,
    block_stored,
    frame,
    score,
    score_request,
    service_with_pod,
)
from support.services.running import RunningService, local_configuration, running_service

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 1000


async def scrape_of_one(folder: Path) -> str:
    """What a replica without a store says: scored, routed, tokenized, restored, and in trouble."""
    tokenizer = write_tokenizer(folder)
    settings: dict[str, Any] = {
        "models": [{"name": MODEL, "tokenizer": str(tokenizer)}],
        "snapshot": {"path": str(folder / "index.snapshot"), "interval_seconds": 0.05},
        "limits": {"prompt_tokens": _LIMIT},
        "discovery": {"pods": [f"http://127.0.0.1:{free_port()}"], "ready_seconds": 0},
    }
    async with service_with_pod(**settings) as (service, pod):
        await _publish(service, pod)
        answer = await score(service, score_request(TOKENS, want_handle=True))
        text = scoring_pb2.ScoreRequest(model=MODEL, prompt={"text": "The map of blocks"})
        await score(service, text)
        await _stream(service)
        await _route(service, answer.handle)
        await _refused(service, score_request([1] * (_LIMIT + 1)))
        service.application.loops.deaths["sweep"] += 1  # which nothing here makes die
        async with asyncio.timeout(DEADLINE_SECONDS):
            page = ""
            while not ("kvatlas_snapshot_age" in page and "kvatlas_engines_asked_total{" in page):
                page = await asyncio.to_thread(scrape, service)
        return page


async def scrape_of_replica(url: str, folder: Path) -> str:
    """What a replica with a store says, that wants tokens and takes few connections."""
    (folder / "tokens").write_text("token\n")
    configuration = local_configuration(
        grpc={
            "listen": ["127.0.0.1:0"],
            "drain_seconds": 0.1,
            "token_file": str(folder / "tokens"),
            "connections": 1,
        },
        store={"url": url},
    )
    async with running_service(configuration) as service:
        await _refused(service, score_request(TOKENS))
        host, _, port = service.application.addresses[0].rpartition(":")
        await asyncio.to_thread(_connect_once_more, host, int(port))
        return await asyncio.to_thread(scrape, service)


def scrape(service: RunningService) -> str:
    """What Prometheus gets."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{service.application.metrics_port}/metrics"
    ) as answer:
        return str(answer.read().decode())


def labels_by_sample(*pages: str) -> dict[str, set[str]]:
    """The labels of each sample's name; of a metric without samples, none."""
    found: dict[str, set[str]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.setdefault(name, set())
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def _publish(service: RunningService, pod: Publisher) -> None:
    pod.send(frame(0, block_stored(TOKENS)))
    pod.send(frame(1, block_stored(TOKENS[:16], 9, medium="holodeck")))  # which has no weight
    pod.send(frame(2, block_stored(TOKENS[16:32], 19, lora_id=7)))  # an adapter without a name
    pod.send(frame(3, topic="who-is-this"))
    pod.send(frame(3))
    await service.until_applied({(POD, 0): 3})


async def _stream(service: RunningService) -> None:
    stub: Any = scoring_pb2_grpc.ScoringServiceStub(service.channel)
    request = scoring_pb2.ScoreStreamRequest(id=1, score=score_request(TOKENS))
    call = stub.ScoreStream(iter([request]))
    assert [answer async for answer in call]


async def _route(service: RunningService, handle: bytes) -> None:
    stub: Any = routing_pb2_grpc.RoutingServiceStub(service.channel)
    await stub.RecordRouting(routing_pb2.RecordRoutingRequest(handle=handle, pod=POD))
    outcome = routing_pb2.ReportOutcomeRequest(handle=handle, cached_tokens=16, pod=POD)
    outcome.cached_tokens_by_source["local"] = 16
    await stub.ReportOutcome(outcome)


async def _refused(service: RunningService, request: scoring_pb2.ScoreRequest) -> None:
    try:
        await score(service, request)
    except grpc.aio.AioRpcError:
        return
    raise AssertionError("this call should fail")


def _connect_once_more(host: str, port: int) -> None:
    with socket.create_connection((host, port), DEADLINE_SECONDS) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        while connection.recv(4096):
            pass
