"""The URL of a pod is enough: its engine is asked for everything else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc
from kvatlas.v1.trust_pb2 import TRUST_STATE_EXACT
from support.engines.model_server import (
    MODEL,
    ModelServer,
    block_stored,
    model_server,
    models_of,
)
from support.ports import free_port
from support.services.one_pod import TOKENS, score, score_request
from support.services.running import RunningService, local_configuration, running_service

from service.cli.main import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with model_server() as server:
        yield server


def discovering(*urls: str, **settings: Any) -> Any:
    """A service that is given the URLs of pods, and nothing else."""
    discovery = {"pods": list(urls), **settings.pop("discovery", {})}
    return running_service(local_configuration(discovery=discovery, **settings))


async def findings(service: RunningService) -> dict[str, str]:
    """What looks misconfigured: kind -> detail."""
    stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
    answer = await stub.ListPods(fleet_pb2.ListPodsRequest())
    return {warning.kind: warning.detail for warning in answer.warnings}


async def publish_prompt(service: RunningService, server: ModelServer, rank: int = 0) -> None:
    """The engine stores the prompt, and the service knows it."""
    await server.ranks[rank].publisher.until_subscribed()
    sequence = server.ranks[rank].publish(block_stored(TOKENS))
    await service.until_applied({(server.pod, rank): sequence})


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_a_pod_is_listened_to_by_its_url_alone(server: ModelServer, kind: str) -> None:
    if kind == "sglang":
        server.say_sglang()
    server.ranks[0].publish(block_stored(TOKENS[:32]))  # before anybody listens: it is replayed
    async with discovering(server.url) as service:
        await server.ranks[0].publisher.until_subscribed()
        sequence = server.ranks[0].publish(block_stored(TOKENS))
        await service.until_applied({(server.pod, 0): sequence})
        await service.until(lambda pods: pods[server.pod, 0].trust_state == TRUST_STATE_EXACT)
        answer = await score(service, score_request(TOKENS))
        assert [(pod.pod, pod.matched_blocks) for pod in answer.pods] == [(server.pod, 4)]
        assert not await findings(service)
        assert sum(server.asked.values()) == {"vllm": 4, "sglang": 2}[kind]


async def test_each_rank_is_listened_to(server: ModelServer) -> None:
    await server.new_engine(ranks=3)
    server.say_vllm()
    async with discovering(server.url) as service:
        for rank in (2, 0):
            await publish_prompt(service, server, rank)
        pods = await service.pods()
        assert {rank: found.blocks_by_tier["gpu"] for (_, rank), found in pods.items()} == {
            0: 4,
            1: 0,
            2: 4,
        }


async def test_a_pod_that_does_not_answer_yet_is_asked_until_it_does(server: ModelServer) -> None:
    await server.refuse()
    async with discovering(server.url, discovery={"ready_seconds": 0.1}) as service:
        state = service.application.fleet.states[server.pod]
        assert state.facts is None
        answer = await score(service, score_request(TOKENS, pods=[server.pod]))
        assert answer.unknown_pods == [server.pod]
        await server.serve()
        await publish_prompt(service, server)
        answer = await score(service, score_request(TOKENS, pods=[server.pod]))
        assert [pod.matched_blocks for pod in answer.pods] == [4]


async def test_an_engine_that_comes_back_is_asked_again(server: ModelServer) -> None:
    async with discovering(server.url) as service:
        await publish_prompt(service, server)
        # It restarts with another model and other ports.
        await server.refuse()
        await server.new_engine()
        server.say_vllm()
        server.answers["/v1/models"] = (200, models_of("vllm", "another/model"))
        await server.serve()
        await publish_prompt(service, server)
        answer = await score(service, score_request(TOKENS, model="another/model"))
        assert [(pod.pod, pod.matched_blocks) for pod in answer.pods] == [(server.pod, 4)]
        stub = fleet_pb2_grpc.FleetServiceStub(service.admin)
        listed = await stub.ListPods(fleet_pb2.ListPodsRequest())
        assert [pod.model for pod in listed.pods] == ["another/model"]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda s: s.update({"/kv_event_sources": (200, {})}), "no_events", "--kv-events-config"),
        (
            lambda s: s["/kv_event_sources"][1]["0"].update(replay_endpoint=None),
            "no_replay",
            "replay_endpoint",
        ),
        (
            lambda s: s["/kv_event_sources"][1]["0"].update(endpoint="tcp://10.9.9.9:5557"),
            "events_elsewhere",
            "--bind",
        ),
        (
            lambda s: s.update(
                {"/metrics": (200, '\nvllm:cache_config_info{block_size="24"} 1.0\n')}
            ),
            "block_size_unfit",
            "--index.block-size 24",
        ),
        (
            lambda s: s.update(
                {"/metrics": (200, '\nvllm:cache_config_info{enable_prefix_caching="False"} 1\n')}
            ),
            "no_prefix_caching",
            "--enable-prefix-caching",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
async def test_a_contradiction_is_warned_of_with_the_flag_that_mends_it(
    server: ModelServer, change: Any, kind: str, words: str
) -> None:
    change(server.answers)
    async with discovering(server.url) as service:
        found = await findings(service)
        assert list(found) == [kind]
        assert words in found[kind]


async def test_an_engine_cannot_lead_to_another_host(server: ModelServer) -> None:
    for name in ("endpoint", "replay_endpoint"):
        server.answers["/kv_event_sources"][1]["0"][name] = "tcp://10.9.9.9:5557"
    server.answers["/version"] = (302, b"")
    async with discovering(server.url) as service:
        assert not service.application.listener.sources
    server.say_vllm()
    server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = "tcp://10.9.9.9:5558"
    async with discovering(server.url) as service:
        (source,) = service.application.listener.sources
        assert (source.endpoint, source.replay) == (f"tcp://127.0.0.1:{server.ranks[0].port}", "")


async def test_the_key_of_an_engine_comes_from_a_file(server: ModelServer, tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text("sk-1\n")
    async with discovering(server.url, discovery={"token_file": str(file)}):
        assert server.headers["authorization"] == "bearer sk-1"
    server.answers["/v1/models"] = (401, {"error": "Unauthorized"})
    async with discovering(server.url) as service:
        assert "discovery.token_file" in service.application.fleet.states[server.pod].failure
        assert service.application.fleet.asked == {"unauthorized": 1}


async def test_a_restarted_service_goes_on_with_its_snapshot(
    server: ModelServer, tmp_path: Any
) -> None:
    snapshot = {"path": str(tmp_path / "snapshot")}
    async with discovering(server.url, snapshot=snapshot) as service:
        await publish_prompt(service, server)
    async with discovering(server.url, snapshot=snapshot) as service:
        await service.until(lambda pods: pods[server.pod, 0].trust_state == TRUST_STATE_EXACT)
        answer = await score(service, score_request(TOKENS))
        assert [pod.matched_blocks for pod in answer.pods] == [4]


async def test_a_pod_that_is_configured_besides_is_listened_to_once(server: ModelServer) -> None:
    endpoint = f"tcp://127.0.0.1:{server.ranks[0].port}"
    source = {"endpoint": endpoint, "pod": server.pod, "model": MODEL}
    async with discovering(server.url, sources=[source]) as service:
        assert [source.endpoint for source in service.application.listener.sources] == [endpoint]
        await publish_prompt(service, server)


async def test_check_says_what_the_pods_are_and_what_is_wrong_with_them(
    server: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers["/kv_event_sources"][1]["0"]["replay_endpoint"] = None
    nobody = f"http://127.0.0.1:{free_port()}"
    words = ["check", "--pod", server.url, "--pod", nobody]
    assert await asyncio.to_thread(main, words) == 0
    shown = capsys.readouterr()
    endpoint = f"tcp://127.0.0.1:{server.ranks[0].port}"
    assert f"{server.url}: vllm 0.32.0 serves {MODEL}; blocks of 16 tokens" in shown.out
    assert f"publishes at {endpoint}" in shown.out
    assert f"{server.url}: no_replay" in shown.err
    assert f"{nobody} cannot be asked now" in shown.err


async def test_check_says_what_keeps_pods_from_being_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    missing = tmp_path / "pods.json"
    words = ["check", "--discovery.file", str(missing)]
    words += ["--discovery.kubernetes.selector", "app=vllm"]
    assert await asyncio.to_thread(main, words) == 0
    shown = capsys.readouterr().err
    assert f"discovery.file lists no pods now: {missing}" in shown
    assert "cannot start: discovery.kubernetes" in shown
