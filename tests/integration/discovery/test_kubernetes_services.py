"""The endpoints of a service: conditions, families, ports, slices that overlap."""

from __future__ import annotations

from support.kubernetes import ApiServer, discovering, endpoint, endpoint_slice


async def test_endpoints_of_a_service_are_told_as_their_conditions_say() -> None:
    async with ApiServer() as server:
        server.cluster.apply(
            endpoint_slice(
                "vllm-a",
                endpoint("10.0.0.1", target="p1", ready=True, serving=True, terminating=False),
                endpoint("10.0.0.2", target="p2", ready=False, node="n2"),
                endpoint("10.0.0.3", target="p3"),
                endpoint("10.0.0.4", target="p4", ready=False, serving=True, terminating=True),
                endpoint("10.0.0.5", target="p5", ready=True, terminating=True),
                endpoint("10.0.0.6", ready=None),
                labels={"example.com/model": "m"},
            ),
            endpoint_slice("web", endpoint("10.0.0.9", ready=True), service="web"),
        )
        label = "example.com/model"
        async with discovering(server.url, service="vllm", model_label=label) as told:
            await told.until_addresses(*(f"10.0.0.{number}:8000" for number in range(1, 7)))
            assert told.ready == {"10.0.0.1:8000", "10.0.0.3:8000", "10.0.0.6:8000"}
            pod = told.pod("10.0.0.2:8000")
            assert (pod.name, pod.node, pod.model) == ("models/p2", "n2", "m")
            assert told.pod("10.0.0.6:8000").name == "models/10.0.0.6"

            server.cluster.apply(endpoint_slice("vllm-a", endpoint("10.0.0.2", ready=True)))
            await told.until_addresses("10.0.0.2:8000")
            assert told.ready == {"10.0.0.2:8000"}
            server.cluster.delete(endpoint_slice("vllm-a"))
            await told.until_addresses()
        paths = {request.path for request in server.requests}
        assert paths == {"/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"}


async def test_an_endpoint_in_two_slices_is_told_once_and_is_ready_if_one_says_so() -> None:
    async with ApiServer() as server:
        ready, unready = endpoint("10.0.0.1", ready=True), endpoint("10.0.0.1", ready=False)
        server.cluster.apply(endpoint_slice("old", unready), endpoint_slice("new", ready))
        async with discovering(server.url, service="vllm") as told:
            await told.until_addresses("10.0.0.1:8000")
            assert told.ready
            server.cluster.delete(endpoint_slice("new"))
            await told.until(lambda told: not told.ready)
            server.cluster.delete(endpoint_slice("old"))
            await told.until_addresses()


async def test_a_dual_stack_service_names_each_pod_once() -> None:
    async with ApiServer() as server:
        server.cluster.apply(
            endpoint_slice("v4", endpoint("10.0.0.1", target="a", ready=True)),
            endpoint_slice(
                "v6",
                endpoint("fd00::1", target="a", ready=True),
                endpoint("fd00::2", target="b", ready=True),
                family="IPv6",
            ),
            endpoint_slice("names", endpoint("pod.example.com"), family="FQDN"),
        )
        async with discovering(server.url, service="vllm") as told:
            await told.until_addresses("10.0.0.1:8000", "[fd00::2]:8000")
            server.cluster.delete(endpoint_slice("v4"))
            await told.until_addresses("[fd00::1]:8000", "[fd00::2]:8000")
        async with discovering(server.url, service="vllm", ip_family="ipv4") as told:
            await told.until_addresses()


async def test_ports_are_those_that_slices_name() -> None:
    async with ApiServer() as server:
        found = endpoint("10.0.0.1", ready=True)
        server.cluster.apply(
            endpoint_slice("a", found, ports={"rank-0": 9000, "rank-1": 9001, "metrics": 9100})
        )
        async with discovering(server.url, service="vllm", ports=["rank-0", "rank-1"]) as told:
            await told.until_addresses("10.0.0.1:9000", "10.0.0.1:9001")
            server.cluster.apply(endpoint_slice("a", found, ports={"rank-0": 9005}))
            await told.until_addresses("10.0.0.1:9005")
            assert told.discovery.status.skipped.counts == {"port": 1}


async def test_an_endpoint_that_cannot_be_read_leaves_the_slice_s_others_alone() -> None:
    async with ApiServer() as server:
        broken = [{"addresses": []}, {"addresses": ["nowhere"]}, "endpoint", {"addresses": "x"}]
        found = endpoint("10.0.0.1", ready=True)
        server.cluster.apply(endpoint_slice("a", *broken, found))  # type: ignore[arg-type]
        async with discovering(server.url, service="vllm") as told:
            await told.until_addresses("10.0.0.1:8000")
            assert told.discovery.status.skipped.counts == {"unreadable": 4}
            server.cluster.apply(endpoint_slice("b", *(endpoint("10.0.0.2") for _ in range(1001))))
            server.cluster.apply(endpoint_slice("c", endpoint("10.0.0.3")))
            await told.until_addresses("10.0.0.1:8000", "10.0.0.3:8000")
