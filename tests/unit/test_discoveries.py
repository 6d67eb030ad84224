"""Those who discover pods by a name or a file, and what they make of broken answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from service.config import pod_url
from service.discovery import DnsPods, MemoryRegistry, RegisteredPods
from service.discovery.dns import addresses_of
from service.discovery.file import read_pods

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from service.discovery import DiscoveredPod

Answer = tuple[str, ...] | OSError
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "not known")
BUSY = socket.gaierror(socket.EAI_AGAIN, "try again")


async def told_by(*answers: Answer, url: str = "http://vllm:8000") -> list[list[str]]:
    """The URLs that are told when a name is looked up, and has these answers one by one."""
    told: list[list[str]] = []
    left = list(answers)
    is_over = asyncio.Event()

    async def resolve(host: str) -> Collection[str]:
        assert host == "vllm"
        if not left:
            is_over.set()
            await asyncio.Event().wait()
        answer = left.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def found(pods: Collection[DiscoveredPod]) -> None:
        told.append([pod.url for pod in pods])

    task = asyncio.create_task(DnsPods(url, 0.0, resolve).run(found))
    await is_over.wait()
    task.cancel()
    await asyncio.wait([task])
    return told


ONE, TWO = "http://10.0.0.1:8000", "http://10.0.0.2:8000"


async def test_each_address_behind_a_name_is_a_pod() -> None:
    assert await told_by(("10.0.0.2", "10.0.0.1")) == [[ONE, TWO]]
    assert await told_by(("fd00::1",), url="https://vllm:8443") == [["https://[fd00::1]:8443"]]


async def test_a_pod_is_told_of_at_once_and_gone_after_three_answers_without_it() -> None:
    both, one = ("10.0.0.1", "10.0.0.2"), ("10.0.0.1",)
    assert await told_by(one, both) == [[ONE], [ONE, TWO]]
    assert await told_by(both, one, one) == [[ONE, TWO]]
    assert await told_by(both, one, one, both, one, one) == [[ONE, TWO]]
    assert await told_by(both, one, one, one) == [[ONE, TWO], [ONE]]


async def test_a_server_that_fails_tells_nothing_and_an_unknown_name_has_no_pods() -> None:
    one = ("10.0.0.1",)
    assert await told_by(BUSY, BUSY, one, BUSY, BUSY, BUSY, BUSY) == [[ONE]]
    assert await told_by(UNKNOWN) == [[]]
    assert await told_by(one, UNKNOWN, UNKNOWN, UNKNOWN) == [[ONE], []]
    # What fails in between does not count as an answer.
    assert await told_by(one, UNKNOWN, BUSY, UNKNOWN, one) == [[ONE]]


def test_one_name_with_two_ports_is_two_discoveries() -> None:
    one, other = DnsPods("http://vllm:8000", 1.0), DnsPods("http://vllm:8001", 1.0)
    assert one.name != other.name


async def test_what_can_be_no_name_is_not_known() -> None:
    with pytest.raises(socket.gaierror, match="no name"):
        await addresses_of("a" * 64 + ".example")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pods.json")
    with pytest.raises(ValueError, match="no file"):
        read_pods(tmp_path / "pods.json")


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "3", '"http://h:1"', '{"pods": 3}', '{"pods": {}}', '{"pods": [3]}'),
        *('{"pods": ["ftp://h:1"]}', '{"pods": ["http://h"]}', '{"pods": ["http://h:1/path"]}'),
        *('{"pods": [{"url": "http://h:1", "colour": 1}]}', '{"pods": [{"model": "m"}]}'),
        *('{"pods": [{"url": "http://h:1", "roles": 1}]}', '{"pod": []}', "\0", "[" * 100_000),
    ],
)
def test_a_broken_list_of_pods_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "pods.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"."):
        read_pods(file)


def test_pods_are_listed_in_json_and_in_toml(tmp_path: Path) -> None:
    json_file, toml_file = tmp_path / "pods.json", tmp_path / "pods.toml"
    json_file.write_text(
        '{"pods": ["http://h:1", {"url": "http://h:2/", "roles": ["decode"], "ready": false}]}'
    )
    toml_file.write_text(
        '[[pods]]\nurl = "http://h:1"\n[[pods]]\nurl = "http://h:2"\nroles = ["decode"]\n'
        "ready = false\n"
    )
    pods = read_pods(json_file)
    assert pods == read_pods(toml_file)
    assert [(pod.address, pod.is_ready, set(pod.roles)) for pod in pods] == [
        ("h:1", True, set()),
        ("h:2", False, {"decode"}),
    ]


@pytest.mark.parametrize(
    "url",
    [
        *("h:8000", "http://h", "http://:8000", "ftp://h:1", "http://h:8000/v1", "http://u@h:1"),
        *("http://h:1?x", "http://h:1#x", "http://h:99999", "http://h:x", "", "http://[::1:8000"),
        *(
            "http://h:0",
            "http://:p@h:1",
            "http://@h:1",
            "http://h:1\n",
            "http://h\t:1",
            "http://h h:1",
        ),
    ],
)
def test_what_is_no_address_of_a_pod_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        pod_url(url)


POD = {"url": "http://h:1", "is_ready": True, "model": "", "roles": [], "node": "", "name": ""}


@pytest.mark.parametrize(
    "entry",
    [
        *(b"", b"{", b"3", b"[" * 100_000, b"\xff", b"{}", b'{"pod": 3, "until": null}'),
        *(
            json.dumps({"pod": {**POD, **odd}, "until": None}).encode()
            for odd in ({"url": 5}, {"url": "ftp://h:1"}, {"url": "http://other:1"}, {"roles": 3})
        ),
        json.dumps({"pod": POD, "until": "soon"}).encode(),
        json.dumps({"pod": {**POD, "name": "x" * 2000}, "until": None}).encode(),
    ],
)
async def test_what_is_no_registration_is_dropped_and_the_others_stay(entry: bytes) -> None:
    registry, told = MemoryRegistry(), asyncio.Queue[list[str]]()
    later = {"pod": {**POD, "url": "http://h:2", "colour": "red"}, "until": None, "version": 2}
    await registry.put("h:1", entry)
    await registry.put("h:2", json.dumps(later).encode())  # of a newer version
    pods = RegisteredPods(registry, 8)
    task = asyncio.create_task(
        pods.run(lambda found: told.put_nowait([pod.address for pod in found]))
    )
    assert await told.get() == ["h:2"]
    assert await registry.count() == 1
    task.cancel()
    await asyncio.wait([task])


async def test_a_registration_that_has_ended_waits_for_a_late_renewal() -> None:
    registry, told = MemoryRegistry(), asyncio.Queue[list[str]]()
    for number, ago in enumerate((1, 61), 1):
        ended = {"pod": {**POD, "url": f"http://h:{number}"}, "until": time.time() - ago}
        await registry.put(f"h:{number}", json.dumps(ended).encode())
    pods = RegisteredPods(registry, 8)
    task = asyncio.create_task(
        pods.run(lambda found: told.put_nowait([pod.address for pod in found]))
    )
    assert await told.get() == []
    assert list(await registry.read()) == ["h:1"]
    task.cancel()
    await asyncio.wait([task])
