"""Pods that a label selector finds: told as they come, change and go."""

from __future__ import annotations

import pytest
from support.kubernetes import ApiServer, discovering, pod
from support.kubernetes.told import LIMITS, PACE

from service.config.discovery import KubernetesSection
from service.discovery.kubernetes import KubernetesDiscovery


async def test_pods_are_told_as_they_come_change_and_go() -> None:
    async with ApiServer() as server:
        server.cluster.apply(
            pod("a", "10.0.0.1", node="n1"),
            pod("b", "10.0.0.2", ready=False),
            pod("other", "10.0.0.9", labels={"app": "web"}),
            pod("elsewhere", "10.0.0.8", namespace="default"),
        )
        async with discovering(server.url) as told:
            await told.until_addresses("10.0.0.1:8000", "10.0.0.2:8000")
            assert told.ready == {"10.0.0.1:8000"}
            found = told.pod("10.0.0.1:8000")
            assert (found.url, found.node, found.name) == ("http://10.0.0.1:8000", "n1", "models/a")
            assert (found.model, found.roles, found.rank) == ("", frozenset(), None)

            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until(lambda told: len(told.ready) == 2)
            server.cluster.apply(pod("c", "10.0.0.3"))
            await told.until(lambda told: "10.0.0.3:8000" in told.ready)
            server.cluster.apply(pod("a", "10.0.0.1", terminating=True))
            await told.until(lambda told: "10.0.0.1:8000" not in told.ready)
            assert "10.0.0.1:8000" in told.addresses, "it still exists, with its blocks"
            server.cluster.delete(pod("a"))
            await told.until_addresses("10.0.0.2:8000", "10.0.0.3:8000")
            server.cluster.apply(pod("c", "10.0.0.3", phase="Failed"))
            await told.until_addresses("10.0.0.2:8000")
            server.cluster.delete(pod("b"))
            await told.until_addresses()
        assert [request.verb for request in server.requests] == ["list", "watch"]


async def test_a_pod_is_told_once_it_runs_and_has_an_address() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a"), pod("b", "10.0.0.2", phase="Pending"))
        async with discovering(server.url) as told:
            await told.until_addresses()
            server.cluster.apply(pod("a", "10.0.0.1", ready=False))
            await told.until_addresses("10.0.0.1:8000")
            assert not told.ready


async def test_a_pod_whose_labels_no_longer_match_is_gone() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url, selector="app in (vllm, sglang),!canary") as told:
            await told.until_addresses("10.0.0.1:8000")
            server.cluster.apply(pod("a", "10.0.0.1", labels={"app": "vllm", "canary": "1"}))
            await told.until_addresses()
            server.cluster.apply(pod("a", "10.0.0.1", labels={"app": "sglang"}))
            await told.until_addresses("10.0.0.1:8000")


async def test_each_port_of_a_pod_is_a_pod_of_its_own() -> None:
    async with ApiServer() as server:
        server.cluster.apply(
            pod("a", "10.0.0.1", ports={"rank-2": 9002}, annotations={"example.com/rank": "4"}),
            pod("b", "10.0.0.2"),
        )
        ports = ["8000-8001", "rank-2"]
        async with discovering(server.url, ports=ports, rank_label="example.com/rank") as told:
            await told.until_addresses(
                *("10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:9002"),
                *("10.0.0.2:8000", "10.0.0.2:8001"),
            )
            assert told.discovery.status.skipped.counts == {"port": 1}
            assert [told.pod(f"10.0.0.1:{p}").rank for p in (8000, 8001, 9002)] == [4, 5, 6]
            assert told.pod("10.0.0.2:8000").rank is None


async def test_labels_and_annotations_name_model_and_roles() -> None:
    async with ApiServer() as server:
        role = "llm-d.ai/role"
        server.cluster.apply(
            pod("a", "10.0.0.1", labels={"app": "vllm", role: "prefill", "model": "m"}),
            pod("b", "10.0.0.2", labels={"app": "vllm", role: "prefill-decode"}),
            pod("c", "10.0.0.3", annotations={role: "decode, long-context", "model": "a/b"}),
            pod("d", "10.0.0.4", labels={"app": "vllm", role: "both"}),
        )
        async with discovering(server.url, model_label="model", scheme="https") as told:
            await told.until(lambda told: len(told.addresses) == 4)
            pods = [told.pod(f"10.0.0.{number}:8000") for number in (1, 2, 3, 4)]
            assert [pod.model for pod in pods] == ["m", "", "a/b", ""]
            assert [sorted(pod.roles) for pod in pods] == [
                ["prefill"],
                ["decode", "prefill"],
                ["decode", "long-context"],
                ["decode", "prefill"],
            ]
            assert pods[0].url == "https://10.0.0.1:8000"


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("auto", ["10.0.0.1:8000", "[fd00::2]:8000"]),
        ("ipv4", ["10.0.0.1:8000", "10.0.0.2:8000"]),
        ("ipv6", ["[fd00::1]:8000", "[fd00::2]:8000"]),
    ],
)
async def test_a_pod_with_addresses_of_both_families_is_told_once(
    family: str, expected: list[str]
) -> None:
    async with ApiServer() as server:
        server.cluster.apply(
            pod("a", ips=("10.0.0.1", "fd00::1")), pod("b", ips=("fd00::2", "10.0.0.2"))
        )
        async with discovering(server.url, ip_family=family) as told:
            await told.until_addresses(*expected)
            assert told.pod(expected[1]).url == f"http://{expected[1]}"


async def test_all_namespaces_are_watched_at_once_or_several_one_by_one() -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod("p", f"10.0.0.{i}", namespace=f"n{i}") for i in (1, 2, 3)))
        async with discovering(server.url, namespaces=["*"]) as told:
            await told.until_addresses(*(f"10.0.0.{i}:8000" for i in (1, 2, 3)))
        assert {request.path for request in server.requests} == {"/api/v1/pods"}
        async with discovering(server.url, namespaces=["n1", "n2"]) as told:
            await told.until_addresses("10.0.0.1:8000", "10.0.0.2:8000")
            assert len(told.history) == 1, "half of them is not told"
            server.cluster.apply(pod("q", "10.0.0.4", namespace="n2"))
            await told.until(lambda told: "10.0.0.4:8000" in told.addresses)


async def test_nothing_is_told_until_every_namespace_is_known() -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod("p", f"10.0.0.{i}", namespace=f"n{i}") for i in (1, 2)))
        server.forbidden_namespaces = {"n2"}
        async with discovering(server.url, namespaces=["n1", "n2"]) as told:
            failures = told.discovery.status.failures
            await server.until(lambda: failures["forbidden"] >= 2 and server.watches == 1)
            server.cluster.apply(pod("q", "10.0.0.3", namespace="n1"))
            await server.until(lambda: failures["forbidden"] >= 4)
            assert not told.history
            server.forbidden_namespaces = set()
            await told.until_addresses(*(f"10.0.0.{number}:8000" for number in (1, 2, 3)))
            assert len(told.history) == 1


async def test_of_two_pods_with_one_address_the_one_that_is_ready_is_told() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("new", "10.0.0.1"), pod("old", "10.0.0.1", terminating=True))
        async with discovering(server.url) as told:
            await told.until_addresses("10.0.0.1:8000")
            assert told.pod("10.0.0.1:8000").name == "models/new"
            server.cluster.delete(pod("new"))
            await told.until(lambda told: not told.ready)
            assert told.pod("10.0.0.1:8000").name == "models/old"


async def test_objects_that_cannot_be_read_are_counted_and_the_others_told() -> None:
    async with ApiServer() as server:
        broken = [pod(f"broken-{number}", f"10.0.1.{number}") for number in range(7)]
        broken[0]["status"]["podIP"] = "10.0.0.1/../../"
        broken[1]["status"]["podIPs"] = [{"ip": 7}]
        broken[2]["status"] = "Running"
        broken[3]["spec"]["containers"][0]["ports"] = [{"name": "x", "containerPort": 70_000}]
        broken[4]["status"]["podIP"] = "fe80::1%eth0"
        broken[5]["metadata"]["annotations"] = {"llm-d.ai/role": "x" * 600}
        broken[6]["metadata"]["annotations"] = {"rank": "²"}
        server.cluster.apply(pod("a", "10.0.0.1"), *broken[:4])
        async with discovering(server.url, rank_label="rank") as told:
            await told.until_addresses("10.0.0.1:8000")
            server.cluster.apply(*broken[4:], pod("b", "10.0.0.2"))
            await told.until_addresses("10.0.0.1:8000", "10.0.0.2:8000")
            assert told.discovery.status.skipped.counts == {"unreadable": 7}
            broken[0] = pod("broken-0", "10.0.0.3")
            server.cluster.apply(broken[0])
            await told.until(lambda told: "10.0.0.3:8000" in told.addresses)
            broken[0]["status"]["podIP"] = "nowhere"
            server.cluster.apply(broken[0])
            await told.until_addresses("10.0.0.1:8000", "10.0.0.2:8000")


async def test_pods_beyond_the_limit_are_left_out_until_there_is_room() -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 8)))
        async with discovering(server.url, limit=5) as told:
            first = [f"10.0.0.{number}:8000" for number in range(1, 6)]
            await told.until_addresses(*first)
            assert told.discovery.status.skipped.counts == {"limit": 2}
            server.cluster.delete(pod("p1"))
            await told.until_addresses(*first[1:], "10.0.0.6:8000")


async def test_requests_ask_for_pages_bookmarks_and_an_end() -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 8)))
        async with discovering(server.url) as told:
            await told.until(lambda told: len(told.addresses) == 7)
            assert len(told.history) == 1, "a page is no list"
            await server.until(lambda: server.watches == 1)
        *pages, watch = [request.parameters for request in server.requests]
        assert [page["limit"] for page in pages] == ["3", "3", "3"]
        assert all(page["labelSelector"] == "app=vllm" for page in [*pages, watch])
        assert [("continue" in page) for page in pages] == [False, True, True]
        assert watch["resourceVersion"] == str(server.cluster.revision)
        assert watch["allowWatchBookmarks"] == "true"
        assert 1 <= int(watch["timeoutSeconds"]) <= 5


async def test_the_callback_s_own_errors_end_the_discovery() -> None:
    """Errors of whoever is told are not mistaken for those of the API server."""

    def found(pods: object) -> None:
        raise OSError("no space")

    async with ApiServer() as server:
        section = KubernetesSection(selector="app", namespaces=("models",), api_server=server.url)
        discovery = KubernetesDiscovery(section, 10, PACE, LIMITS)
        with pytest.raises(ExceptionGroup) as caught:
            await discovery.run(found)
        assert caught.group_contains(OSError, match="no space")
        assert not discovery.status.failures
