"""The examples of engines publish what kvatlas understands, where it looks for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.deployed.manifests import DEPLOY, ENGINES, containers, engine, pod_labels, rendered
from support.deployed.policies import Peer, allows
from support.deployed.workload import FIELDS

from kvevents import Source
from service.config.configuration import load
from service.config.events import SourceSection
from service.engines.facts import EngineFacts
from service.engines.sglang import read_publishers
from service.engines.sources import Expectations, sources_of
from service.engines.vllm import read_sources

FOUND = ["vllm", "sglang"]
FIELDS_OF = {
    "vllm": {"enable_kv_cache_events", "publisher", "endpoint", "replay_endpoint", "topic"},
    "sglang": {"publisher", "endpoint", "replay_endpoint", "topic"},
}
"""Fields of the engines' KVEventsConfig that are used here; both refuse others."""


def arguments(name: str) -> dict[str, str]:
    """The flags of an engine, with what Kubernetes puts in place of $(NAME)."""
    (container,) = containers(engine(name))
    variables = {
        each["name"]: FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
        if "valueFrom" in each
    }
    flags = {}
    for argument in container["args"]:
        flag, _, value = argument.removeprefix("--").partition("=")
        flags[flag] = re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], value)
    return flags


def events(name: str) -> dict[str, Any]:
    """Its --kv-events-config."""
    made = json.loads(arguments(name)["kv-events-config"])
    assert isinstance(made, dict)
    return made


def ports(name: str) -> dict[str, int]:
    (container,) = containers(engine(name))
    return {each["name"]: each["containerPort"] for each in container["ports"]}


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_is_told_to_publish_over_zmq_with_fields_it_knows(name: str) -> None:
    configured = events(name)
    kind = "sglang" if name == "sglang" else "vllm"
    assert configured.keys() <= FIELDS_OF[kind]
    assert configured["publisher"] == "zmq"
    assert kind == "sglang" or configured["enable_kv_cache_events"] is True


@pytest.mark.parametrize("name", FOUND)
def test_an_engine_that_is_found_binds_its_ports_far_enough_apart_for_its_ranks(name: str) -> None:
    configured, flags = events(name), arguments(name)
    ranks = int(flags.get("data-parallel-size") or flags["dp-size"])
    assert ranks > 1
    assert configured["endpoint"] == f"tcp://*:{ports(name)['events']}"
    assert configured["replay_endpoint"] == f"tcp://*:{ports(name)['replay']}"
    apart = port_of(configured["replay_endpoint"]) - port_of(configured["endpoint"])
    assert abs(apart) >= ranks, "rank 1 publishes at the next port"


def told(name: str) -> EngineFacts:
    """What kvatlas learns from an engine with these flags, as the engine answers by its API."""
    configured, flags = events(name), arguments(name)
    ranks = int(flags.get("data-parallel-size") or flags["dp-size"])
    first, replay = port_of(configured["endpoint"]), port_of(configured["replay_endpoint"])
    if name == "sglang":
        answer = {
            "publisher": configured["publisher"],
            "endpoint_host": "*",
            "endpoint_port_base": first,
            "replay_endpoint_port_base": replay,
            "dp_size": ranks,
        }
        publishers, size = read_publishers(answer), int(flags["page-size"])
    else:
        resolved = {
            str(rank): {
                **configured,
                "endpoint": f"tcp://*:{first + rank}",
                "replay_endpoint": f"tcp://*:{replay + rank}",
            }
            for rank in range(ranks)
        }
        publishers, size = read_sources(resolved), int(flags["block-size"])
    model = flags.get("model") or flags["model-path"]
    return EngineFacts(
        name, "1.0", (model,), block_size=size, prefix_caching=True, publishers=publishers
    )


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("host", ["10.0.0.1", "fd00::1"])
def test_kvatlas_finds_nothing_wrong_with_an_engine_and_reaches_all_its_ranks(
    name: str, host: str
) -> None:
    facts = told(name)
    url = f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000"
    expected = Expectations(block_size_of=lambda _: 16, is_bound=False)
    found = sources_of(url, facts, {host}, expected)
    assert found.findings == ()
    pod = Peer(pod_labels(engine(name)))
    kvatlas = Peer({"app.kubernetes.io/name": "kvatlas"})
    assert [rank.rank for rank in found.ranks] == [0, 1]
    for rank in found.ranks:
        for endpoint in (rank.endpoint, rank.replay):
            assert allows(rendered("fleet"), kvatlas, pod, port_of(endpoint))


def test_an_engine_that_connects_reaches_kvatlas_and_names_itself_in_its_topic() -> None:
    configured = events("vllm-connecting")
    objects = rendered("standalone", ("connecting-pods",))
    (service,) = (
        each
        for each in objects
        if each["kind"] == "Service" and each["metadata"]["name"] == "kvatlas"
    )
    (port,) = (each["port"] for each in service["spec"]["ports"] if each["name"] == "events")
    assert configured["endpoint"] == f"tcp://kvatlas:{port}"
    container = next(
        each
        for workload in objects
        if workload["kind"] == "StatefulSet"
        for each in containers(workload)
    )
    (sources,) = (e["value"] for e in container["env"] if e["name"] == "KVATLAS_SOURCES")
    (section,) = (SourceSection(**each) for each in json.loads(sources))
    publisher = Source(**section.source_values()).publisher_of(configured["topic"].encode())
    address = f"{FIELDS['status.podIP']}:{ports('vllm-connecting')['http']}"
    assert publisher.pod == address
    assert publisher.model == arguments("vllm-connecting")["model"]
    assert port_of(section.replay) == port_of(configured["replay_endpoint"])


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_has_the_label_the_port_and_the_block_size_that_kvatlas_expects(
    name: str, tmp_path: Any
) -> None:
    text = (DEPLOY / "base" / "kvatlas.toml").read_text()
    (selector,) = re.findall(r'selector = "([^"]+)"', text)
    label, value = selector.split("=")
    assert pod_labels(engine(name))[label] == value
    (found,) = re.findall(r"ports = \[(\d+)\]", text)
    assert ports(name)["http"] == int(found) == int(arguments(name)["port"])
    flags = arguments(name)
    size = int(flags.get("block-size") or flags["page-size"])
    file = tmp_path / "kvatlas.toml"
    file.write_text(re.search(r"\[index\]\n(?:[^\[\n].*\n)*", text)[0])  # type: ignore[index]
    assert load(file, {}).index.block_size % size == 0
