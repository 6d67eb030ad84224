"""How the API server is reached: in a pod, from outside, with what changes on the way."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from structlog.testing import capture_logs
from support.certificates import Authority
from support.kubernetes import ApiServer, Told, discovering, pod
from support.kubernetes.told import LIMITS, PACE

from service.config.discovery import KubernetesSection
from service.discovery.kubernetes import AccessError, KubernetesDiscovery
from service.discovery.kubernetes.access import access_of

ONE, TWO = "10.0.0.1:8000", "10.0.0.2:8000"


def served_by(folder: Path, authority: Authority) -> ssl.SSLContext:
    """What a server needs that has a new certificate of an authority."""
    authority.issue(folder / "tls.crt", folder / "tls.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


def replace_file(path: Path, text: str) -> None:
    """Write as Kubernetes does: another file under the same name."""
    new = path.with_name("replacement")
    new.write_text(text)
    new.replace(path)


async def test_a_token_that_is_rotated_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with ApiServer() as server:
        server.token = "first"
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url, token_file=token) as told:
            await told.until_addresses(ONE)
            failures = told.discovery.status.failures
            server.token = "second"
            server.disconnect()
            await server.until(lambda: failures["unauthorized"] >= 2)
            replace_file(token, "second")
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until_addresses(ONE, TWO)
            assert told.discovery.status.lists == 1
        shown = {request.headers["authorization"] for request in server.requests}
        assert shown == {"Bearer first", "Bearer second"}


async def test_a_token_file_that_is_emptied_leaves_the_last_token_in_force(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("right")
    async with ApiServer() as server:
        server.token = "right"
        async with discovering(server.url, token_file=token) as told:
            await told.until_addresses()
            token.write_text("")
            server.disconnect()
            server.cluster.apply(pod("a", "10.0.0.1"))
            await told.until_addresses(ONE)


async def test_a_verb_that_is_forbidden_is_named_in_the_log_and_may_be_allowed_later() -> None:
    async with ApiServer() as server:
        server.forbidden = {"list pods", "watch pods"}
        server.cluster.apply(pod("a", "10.0.0.1"))
        with capture_logs() as logs:
            async with discovering(server.url) as told:
                failures = told.discovery.status.failures
                await server.until(lambda: failures["forbidden"] >= 3)
                server.forbidden = {"watch pods"}
                await told.until_addresses(ONE)
                server.forbidden = set()
                server.cluster.apply(pod("b", "10.0.0.2"))
                await told.until_addresses(ONE, TWO)
        warnings = [entry for entry in logs if entry["log_level"] == "warning"]
        assert [entry["reason"] for entry in warnings] == ["forbidden"]
        assert "cannot list resource 'pods'" in warnings[0]["detail"]


async def test_over_tls_the_server_is_verified_and_new_authorities_are_read(
    tmp_path: Path,
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    ca = tmp_path / "ca.crt"
    ca.write_text(old.file.read_text())
    async with ApiServer(tls=served_by(tmp_path, old)) as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url, ca_file=ca) as told:
            await told.until_addresses(ONE)
            failures = told.discovery.status.failures
            await server.stop()
            server.serve_with(served_by(tmp_path, new))
            await server.start()
            await server.until(lambda: failures["tls"] >= 2)
            server.cluster.apply(pod("b", "10.0.0.2"))
            replace_file(ca, new.file.read_text())
            await told.until_addresses(ONE, TWO)


def run_in_pod(
    monkeypatch: pytest.MonkeyPatch, account: Path, server: ApiServer
) -> KubernetesDiscovery:
    """A discovery as a pod of the server's cluster has it."""
    _, _, address = server.url.partition("://")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address.split(":")[0])
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", address.split(":")[1])
    monkeypatch.setattr("service.discovery.kubernetes.access.SERVICE_ACCOUNT", account)
    return KubernetesDiscovery(KubernetesSection(selector="app"), 10, PACE, LIMITS)


async def test_in_a_pod_its_service_account_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    authority = Authority(tmp_path, "cluster")
    (tmp_path / "token").write_text("mine")
    (tmp_path / "ca.crt").write_text(authority.file.read_text())
    (tmp_path / "namespace").write_text("models")
    async with ApiServer(tls=served_by(tmp_path, authority)) as server:
        server.token = "mine"
        server.cluster.apply(pod("a", "10.0.0.1"), pod("x", "10.0.0.9", namespace="default"))
        discovery = run_in_pod(monkeypatch, tmp_path, server)
        told = Told(discovery)
        task = asyncio.create_task(discovery.run(told.found))
        await told.until_addresses(ONE)
        task.cancel()
        await asyncio.wait([task])


def test_outside_a_cluster_the_message_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("POD_NAMESPACE", raising=False)
    section = KubernetesSection(selector="app")
    with pytest.raises(
        AccessError, match=r"set discovery\.kubernetes\.kubeconfig, or .*kubectl proxy"
    ):
        access_of(section, tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    with pytest.raises(AccessError, match="give the pod a service account"):
        access_of(section, tmp_path)
    (tmp_path / "token").write_text("t")
    with pytest.raises(AccessError, match="POD_NAMESPACE from the downward API"):
        access_of(section, tmp_path)
    monkeypatch.setenv("POD_NAMESPACE", "models")
    with pytest.raises(AccessError, match=r"ca\.crt"):
        access_of(section, tmp_path)
    (tmp_path / "ca.crt").write_text("none")
    with pytest.raises(AccessError, match="unusable certificates"):
        access_of(section, tmp_path)
    (tmp_path / "ca.crt").write_text(Authority(tmp_path, "cluster").file.read_text())
    access = access_of(section, tmp_path)
    assert (access.url, access.namespaces) == ("https://[fd00::1]:443", ("models",))
    assert access.headers() == {"Authorization": "Bearer t"}


def kubeconfig(path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    """Write a file as kubectl has it."""
    other = {"server": "https://203.0.113.1"}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "other", "user": "nobody"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "models"}},
        ],
        "clusters": [{"name": "other", "cluster": other}, {"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("is_embedded", [True, False])
async def test_from_outside_a_kubeconfig_says_how_to_reach_the_cluster(
    tmp_path: Path, is_embedded: bool
) -> None:
    authority = Authority(tmp_path, "cluster")
    context = served_by(tmp_path, authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    authority.issue(tmp_path / "client.crt", tmp_path / "client.key")
    names = {"client-certificate": "client.crt", "client-key": "client.key"}
    user: dict[str, str] = {"token": "t"}
    for name, file in names.items():
        embedded = base64.b64encode((tmp_path / file).read_bytes()).decode()
        user |= {f"{name}-data": embedded} if is_embedded else {name: file}
    async with ApiServer(tls=context) as server:
        server.token = "t"
        server.cluster.apply(pod("a", "10.0.0.1"))
        ca = authority.file.read_bytes()
        cluster = {"server": server.url + "/"}
        if is_embedded:
            cluster["certificate-authority-data"] = base64.b64encode(ca).decode()
        else:
            cluster["certificate-authority"] = str(authority.file.relative_to(tmp_path))
        config = kubeconfig(tmp_path / "config", cluster, user)
        async with discovering("", kubeconfig=config, namespaces=[]) as told:
            await told.until_addresses(ONE)


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        (
            {"server": "https://[::1]"},
            {"exec": {"command": "aws"}},
            "does not support exec: run `kub",
        ),
        ({"server": "https://[::1]", "proxy-url": "http://p"}, {}, "does not support proxy-url"),
        ({"server": "ftp://host"}, {}, "no URL of an API server"),
        ({}, {}, "is no kubeconfig: .*'server'"),
        ({"server": "https://[::1]", "certificate-authority-data": "?"}, {}, "is not base64"),
        ({"server": "https://[::1]", "certificate-authority-data": "eA=="}, {}, "certificates"),
        ({"server": "https://[::1]"}, {"tokenFile": "nowhere"}, "nowhere"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_refused_with_what_is_wrong(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    file = kubeconfig(tmp_path / "config", cluster, user)
    with pytest.raises(AccessError, match=message):
        access_of(KubernetesSection(selector="app", kubeconfig=file))


@pytest.mark.parametrize("text", ["", "[]", "a: [", "current-context: x\ncontexts: []"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(AccessError, match=str(file)):
        access_of(KubernetesSection(selector="app", kubeconfig=file))


def test_kubernetes_is_imported_only_where_it_is_configured() -> None:
    program = (
        "import sys, service.application; print('service.discovery.kubernetes' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "False"
