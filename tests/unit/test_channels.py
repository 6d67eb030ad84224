"""Addresses and options of the clients, before anything is connected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kvatlas_client import Client, Retry, Tls
from kvatlas_client.channels import Endpoint
from kvatlas_client.retries import Backoff


def endpoint(addresses: Any, **fields: Any) -> Endpoint:
    given: dict[str, Any] = {
        "tls": None,
        "balance": "round_robin",
        "retry": Retry(),
        "options": (),
        **fields,
    }
    return Endpoint(addresses, **given)


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("localhost:50051", "localhost:50051"),
        ("unix:/run/kvatlas.sock", "unix:/run/kvatlas.sock"),
        (["dns:///kvatlas:50051"], "dns:///kvatlas:50051"),
        (["10.0.0.1:1", "10.0.0.2:2"], "ipv4:10.0.0.1:1,10.0.0.2:2"),
        (("[::1]:1", "[2001:db8::2]:2"), "ipv6:[::1]:1,[2001:db8::2]:2"),
    ],
)
def test_addresses_become_a_name_that_grpc_resolves(addresses: Any, target: str) -> None:
    assert endpoint(addresses).target() == target


@pytest.mark.parametrize(
    "addresses",
    [
        [],
        "",
        ["10.0.0.1:1", ""],
        ["10.0.0.1:1", "kvatlas:2"],
        ["10.0.0.1:1", "[::1]:1"],
        ["10.0.0.1:1", "unix:/run/kvatlas.sock"],
        ["10.0.0.1", "10.0.0.2"],
        ["10.0.0.1:1", "10.0.0.2:port"],
    ],
)
def test_addresses_that_do_not_fit_are_refused(addresses: Any) -> None:
    with pytest.raises(ValueError, match="addresses: "):
        Client(addresses)


def test_several_addresses_with_tls_need_the_name_in_the_certificate() -> None:
    two = ["10.0.0.1:1", "10.0.0.2:2"]
    with pytest.raises(ValueError, match="server_name"):
        endpoint(two, tls=Tls()).target()
    named = endpoint(two, tls=Tls(server_name="kvatlas"))
    assert named.target()
    assert dict(named.arguments())["grpc.ssl_target_name_override"] == "kvatlas"


def test_options_of_the_caller_win() -> None:
    options = (("grpc.keepalive_time_ms", 1), ("grpc.mine", 2))
    arguments = dict(endpoint("localhost:1", options=options).arguments())
    assert (arguments["grpc.keepalive_time_ms"], arguments["grpc.mine"]) == (1, 2)


def test_streams_are_not_repeated_by_grpc() -> None:
    config = json.loads(dict(endpoint("localhost:1").arguments())["grpc.service_config"])
    streams, others = config["methodConfig"]
    assert "retryPolicy" not in streams
    assert {name["method"] for name in streams["name"]} >= {"ScoreStream", "WatchPods"}
    assert others["name"] == [{}]
    once = endpoint("localhost:1", retry=Retry(attempts=1))
    assert "methodConfig" not in json.loads(dict(once.arguments())["grpc.service_config"])


@pytest.mark.parametrize(
    "numbers",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"first_seconds": 0.001},
        {"first_seconds": 2.0},
        {"longest_seconds": 0.001},
        {"longest_seconds": float("nan")},
    ],
)
def test_retries_out_of_range_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is not between"):
        Retry(**numbers)


def test_pauses_double_up_to_the_longest_and_start_anew() -> None:
    backoff = Backoff(Retry(first_seconds=0.01, longest_seconds=0.05))
    for _ in range(2):
        for expected in (0.01, 0.02, 0.04, 0.05, 0.05):
            assert 0.8 * expected <= backoff.pause() <= 1.2 * expected
        backoff.reset()
    pauses = set()
    for _ in range(20):
        backoff.reset()
        pauses.add(backoff.pause())
    assert len(pauses) > 1
