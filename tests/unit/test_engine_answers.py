"""What engines say of themselves, whole and broken."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from service.engines import EngineAnswerError, EngineFacts, EventPublisher
from service.engines.endpoints import reachable
from service.engines.models import read_models
from service.engines.sglang import read_publishers
from service.engines.sources import Expectations, sources_of
from service.engines.vllm import cache_config, read_sources

# As a vLLM 0.32 server answers.
MODELS = {
    "object": "list",
    "data": [
        {
            "id": "sim/qwen",
            "object": "model",
            "owned_by": "vllm",
            "root": "./plain",
            "parent": None,
        },
        {"id": "alias/qwen", "owned_by": "vllm", "root": "./plain", "parent": None},
        {"id": "sql", "owned_by": "vllm", "root": "./lora1", "parent": "sim/qwen"},
    ],
}
SOURCES = {
    "1": {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": "tcp://*:18101",
        "replay_endpoint": None,
        "topic": "",
    },
    "0": {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": "tcp://*:18100",
        "replay_endpoint": "tcp://*:18200",
        "buffer_steps": 10000,
        "topic": "kv",
    },
    "2": {"enable_kv_cache_events": False, "publisher": "null", "endpoint": "tcp://*:5557"},
}
# As SGLang 0.5.23 describes its publisher.
KV_EVENTS = {
    "publisher": "zmq",
    "endpoint_host": "*",
    "endpoint_port_base": 5557,
    "topic": "",
    "block_size": 64,
    "dp_size": 2,
    "replay_endpoint_port_base": 5657,
}


def test_models_and_adapters_are_told_apart() -> None:
    models = read_models(MODELS)
    assert models.names == ("sim/qwen", "alias/qwen")
    assert (models.engine, models.adapters, models.root) == ("vllm", ("sql",), "./plain")


def test_the_publishers_of_vllm_are_read() -> None:
    assert read_sources(SOURCES) == (
        EventPublisher(0, "tcp://*:18100", "tcp://*:18200", "kv"),
        EventPublisher(1, "tcp://*:18101", "", ""),
    )


def test_the_publishers_of_sglang_are_counted_from_their_base() -> None:
    assert read_publishers(KV_EVENTS) == (
        EventPublisher(0, "tcp://*:5557", "tcp://*:5657", ""),
        EventPublisher(1, "tcp://*:5558", "tcp://*:5658", ""),
    )


def test_the_cache_configuration_is_one_line_among_the_metrics() -> None:
    line = 'vllm:cache_config_info{block_size="32",engine="0"} 1.0'
    assert cache_config(f"# HELP x\n{line}\nother 1\n") == {"block_size": "32", "engine": "0"}
    for metrics in ("", "x 1\n", "\nvllm:cache_config_info{", '\nvllm:cache_config_info{a="b} 1\n'):
        assert cache_config(metrics) == {}


def _damaged(value: Any, choice: random.Random) -> Any:
    """The value with one thing in it replaced by something unexpected."""
    value = copy.deepcopy(value)
    at, nodes = value, [value]
    while isinstance(at, dict | list) and at:
        key = choice.choice(list(at)) if isinstance(at, dict) else choice.randrange(len(at))
        nodes.append((at, key))
        if choice.random() < 0.3:
            break
        at = at[key]
    if len(nodes) == 1:
        return value
    parent, key = nodes[-1]
    odd: Any = choice.choice(
        [None, 0, -1, 2**70, 1.5, "", "x" * 2000, "\0", [], {}, [[]], True, {"a": 1}, float("inf")]
    )
    if isinstance(parent, dict) and choice.random() < 0.3:
        parent[odd if isinstance(odd, str) else "odd"] = parent.pop(key)
    else:
        parent[key] = odd
    return value


@pytest.mark.parametrize(
    ("read", "answer"),
    [(read_models, MODELS), (read_sources, SOURCES), (read_publishers, KV_EVENTS)],
)
def test_a_damaged_answer_is_read_or_refused(read: Any, answer: Any) -> None:
    choice, refused = random.Random(1), 0
    for _ in range(3000):
        try:
            read(_damaged(_damaged(answer, choice), choice))
        except EngineAnswerError as error:
            assert error.why in {"malformed", "no_model"}
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    ("endpoint", "url", "expected"),
    [
        ("tcp://*:5557", "http://10.0.0.1:8000", "tcp://10.0.0.1:5557"),
        ("tcp://0.0.0.0:5557", "http://10.0.0.1:8000", "tcp://10.0.0.1:5557"),
        ("tcp://[::]:5557", "http://[fd00::1]:8000", "tcp://[fd00::1]:5557"),
        ("tcp://:::5557", "http://[fd00::1]:8000", "tcp://[fd00::1]:5557"),
        ("tcp://10.0.0.1:40001", "http://10.0.0.1:8000", "tcp://10.0.0.1:40001"),
        ("tcp://10.0.0.9:40001", "http://vllm-0:8000", "tcp://vllm-0:40001"),  # its own address
        ("tcp://*:5557", "http://vllm-0:8000", "tcp://vllm-0:5557"),
        ("tcp://10.0.0.2:5557", "http://10.0.0.1:8000", ""),
        ("tcp://kvatlas:5557", "http://10.0.0.1:8000", ""),
        ("ipc:///tmp/kv", "http://127.0.0.1:8000", "ipc:///tmp/kv"),
        ("ipc:///tmp/kv", "http://10.0.0.1:8000", ""),
        *((odd, "http://10.0.0.1:8000", "") for odd in ("", "tcp://", "tcp://*", "tcp://*:0")),
        *(
            (odd, "http://10.0.0.1:8000", "")
            for odd in ("tcp://*:x", "tcp://*:70000", "inproc://a")
        ),
    ],
)
def test_a_socket_is_reached_at_the_engine_s_own_address(
    endpoint: str, url: str, expected: str
) -> None:
    addresses = {"10.0.0.9"} if "vllm-0" in url else set()
    assert reachable(endpoint, url, addresses) == expected


@pytest.mark.parametrize(
    "answer",
    [
        {"0": SOURCES["0"], "00": SOURCES["1"]},
        {"9" * 5000: SOURCES["0"]},
        {"-1": SOURCES["0"]},
        {"\x1b[31m\n": 3},
    ],
)
def test_ranks_that_cannot_be_are_refused_in_plain_words(answer: Any) -> None:
    with pytest.raises(EngineAnswerError) as raised:
        read_sources(answer)
    assert raised.value.why == "malformed"
    assert str(raised.value).isprintable()


def test_metrics_that_nobody_needs_are_not_read() -> None:
    labels = ",".join(f'label{number}="x"' for number in range(2000))
    assert cache_config(f"\nvllm:cache_config_info{{{labels}}} 1\n") == {}


def test_no_more_ranks_are_listened_to_than_a_pod_may_have() -> None:
    publishers = read_publishers({**KV_EVENTS, "dp_size": 4096})
    facts = EngineFacts("sglang", "0.5.23", ("m",), publishers=publishers)
    expected = Expectations(lambda _: 64, is_bound=False, most_ranks=8)
    found = sources_of("http://10.0.0.1:8000", facts, frozenset(), expected)
    assert [rank.rank for rank in found.ranks] == list(range(8))
    assert [finding.kind for finding in found.findings] == ["too_many_ranks"]


def test_each_rank_has_a_source_of_its_own() -> None:
    facts = EngineFacts("vllm", "0.32.0", ("m",), block_size=64, publishers=read_sources(SOURCES))
    expected = Expectations(lambda _: 16, is_bound=False)
    found = sources_of("http://10.0.0.1:8000", facts, frozenset(), expected)
    assert [(rank.rank, rank.endpoint, rank.replay, rank.topic) for rank in found.ranks] == [
        (0, "tcp://10.0.0.1:18100", "tcp://10.0.0.1:18200", "kv"),
        (1, "tcp://10.0.0.1:18101", "", ""),
    ]
    assert {rank.pod for rank in found.ranks} == {"10.0.0.1:8000"}
    assert [finding.kind for finding in found.findings] == ["no_replay"]
