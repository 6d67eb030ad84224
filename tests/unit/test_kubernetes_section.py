"""The section about Kubernetes: what it takes, and how it refuses the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.config.configuration import ConfigurationError, load


def section(**settings: Any) -> Any:
    return load(None, {"discovery": {"kubernetes": settings}}).discovery.kubernetes


def test_pods_are_looked_for_if_a_selector_or_a_service_says_which() -> None:
    assert not section().is_enabled
    assert section(selector="app=vllm").is_enabled
    assert section(service="vllm", namespaces=["a", "b", "a"]).namespaces == ("a", "b")


def test_ports_are_numbers_ranges_and_names() -> None:
    assert section().ports == ("8000",)
    assert section(ports=[8000, "8002-8004", "http-0", "8000"]).ports == (
        *("8000", "8002", "8003", "8004"),
        "http-0",
    )


@pytest.mark.parametrize(
    "selector",
    [
        "app",
        "!canary",
        "app=vllm",
        "app == vllm , tier!=x",
        "example.com/app in (a, b-c),tier notin (x)",
        "app=",
    ],
)
def test_selectors_are_those_of_kubernetes(selector: str) -> None:
    assert section(selector=selector).selector == selector


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selector": "app=vllm", "service": "vllm"}, "set selector or service, not both"),
        ({"selector": "app:vllm"}, "this is no label selector, such as app=vllm"),
        ({"selector": "app in vllm"}, "this is no label selector"),
        ({"selector": "a,,b"}, "this is no label selector"),
        ({"service": "vllm.models"}, "write vllm, not vllm.namespace or a URL"),
        ({"namespaces": ["models"]}, "without selector or service: nothing would be watched"),
        ({"selector": "a", "namespaces": ["*", "b"]}, r"\* stands for all namespaces"),
        ({"selector": "a", "namespaces": ["../b"]}, "'../b' is no name of a namespace"),
        ({"ports": []}, "must be 1 to 64 ports, not 0"),
        ({"ports": ["0"]}, "'0' is no port from 1 to 65535"),
        ({"ports": ["9-8"]}, "'9-8' is no port from 1 to 65535, or no range"),
        ({"ports": ["1-65535"]}, "'1-65535' are more than 64 ports"),
        ({"ports": ["8000-8063", "9000"]}, "must be 1 to 64 ports, not 65"),
        ({"ports": ["HTTP"]}, "'HTTP' is no port: write a number, 8000-8007, or a port's name"),
        ({"ports": ["²"]}, "is no port"),
        ({"ports": True}, "ports: .*(true|True)"),
        ({"model_label": "a b"}, "'a b' is no name of a label, such as example.com/model"),
        ({"api_server": "10.0.0.1:6443"}, "'10.0.0.1:6443' is not https://host:port"),
        ({"api_server": "https://u:p@host"}, "a token belongs in token_file"),
        ({"api_server": "http://10.0.0.1", "token_file": __file__}, "would be sent unencrypted"),
        ({"kubeconfig": "/nowhere"}, "this file does not exist"),
        ({"kubeconfig": __file__, "api_server": "https://h"}, "set kubeconfig or api_server"),
        ({"ca_file": __file__}, "are for api_server, which is not set"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_right(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"discovery\.kubernetes") as caught:
        section(**settings)
    assert caught.match(message)


def test_a_token_may_be_sent_to_this_host_and_over_tls(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    for url in ("http://127.0.0.1:8001", "http://[::1]:8001", "https://10.0.0.1"):
        assert section(api_server=url, token_file=token).token_file == token
