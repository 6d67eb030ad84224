"""An API server that fails takes no pod away, and is asked again, politely."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs
from support.kubernetes import ApiServer, Fault, Told, discovering, pod
from support.kubernetes.cluster import Cluster
from support.kubernetes.told import IMPATIENT, LIMITS

from service.discovery.kubernetes import Pace

ONE, TWO, THREE = (f"10.0.0.{number}:8000" for number in (1, 2, 3))


def quick(watch_seconds: float) -> Pace:
    return Pace(watch_seconds, backoff_first=0.01, backoff_limit=0.1)


async def one_pod(server: ApiServer, told: Told) -> None:
    """Wait until the only pod is told and watched."""
    await told.until_addresses(ONE)
    await server.until(lambda: server.watches == 1)


FAULTS_OF_LISTS = {
    "server_error": Fault("status", 500),
    "throttled": Fault("status", 429),
    "forbidden": Fault("status", 403),
    "unauthorized": Fault("status", 401),
    "not_found": Fault("status", 404),
    "refused": Fault("status", 302),
    "gone": Fault("status", 410),
    "disconnected": Fault("half"),
    "timeout": Fault("silent"),
    "malformed": Fault("garbage"),
    "too_large": Fault("huge", size=300_000),
}


@pytest.mark.parametrize("reason", FAULTS_OF_LISTS)
async def test_a_list_that_fails_is_asked_for_again(reason: str) -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("list", FAULTS_OF_LISTS[reason], Fault("close"), Fault("answer"))
        limits = IMPATIENT if reason == "timeout" else LIMITS
        async with discovering(server.url, limits=limits) as told:
            await told.until_addresses(ONE)
            assert told.history == [{ONE}], "what an API server does not say is not told"
            failures = told.discovery.status.failures
            assert failures[reason] >= 1
            assert failures["malformed"] >= 1
            assert failures["disconnected"] >= 1
            assert sum(failures.values()) == 3 or reason == "timeout"


LISTS_THAT_ARE_NONE = [
    b"null",
    b"[]",
    b'{"kind": "Status", "metadata": {"resourceVersion": "1"}, "items": []}',
    b'{"kind": "PodList", "metadata": {}, "items": []}',
    b'{"kind": "PodList", "metadata": null, "items": []}',
    b'{"kind": "PodList", "metadata": {"resourceVersion": 1}, "items": []}',
    b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}}',
    b'{"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": {}}',
]


async def test_what_is_no_list_is_not_taken_for_an_empty_one() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("list", *(Fault("answer", body=body) for body in LISTS_THAT_ARE_NONE))
        async with discovering(server.url) as told:
            await told.until_addresses(ONE)
            assert told.history == [{ONE}]
            assert told.discovery.status.failures == {"malformed": len(LISTS_THAT_ARE_NONE)}


async def test_a_list_without_items_says_that_there_are_none() -> None:
    """Go writes an empty list as null where nobody has made one."""
    body = b'{"kind": "PodList", "metadata": {"resourceVersion": "100"}, "items": null}'
    async with ApiServer() as server:
        server.faults.plan("list", Fault("answer", body=body))
        async with discovering(server.url) as told:
            await told.until_addresses()
            assert not told.discovery.status.failures


async def test_a_relist_that_fails_takes_no_pod_away() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"), *(pod(f"p{n}", f"10.1.0.{n}") for n in range(9)))
        async with discovering(server.url, limits=IMPATIENT) as told:
            await told.until(lambda told: len(told.addresses) == 10)
            # The list breaks off on its second page; what is complete is told, the rest is not.
            server.faults.plan("list", Fault("slow"), Fault("half"), Fault("answer"))
            server.faults.plan("list", *FAULTS_OF_LISTS.values())
            server.faults.plan("event", Fault("gone"))
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until(lambda told: TWO in told.addresses)
            assert not server.faults.are_left
            assert all(len(addresses) >= 10 for addresses in told.history)
            assert told.discovery.status.relists == 1


FAULTS_OF_EVENTS = {
    "half": ("disconnected", 0),
    "cut": ("disconnected", 0),
    "close": ("disconnected", 0),
    "gone": ("gone", 1),
    "error": ("server_error", 1),
    "garbage": ("malformed", 1),
    "huge": ("too_large", 1),
}


@pytest.mark.parametrize("kind", FAULTS_OF_EVENTS)
async def test_a_watch_that_breaks_goes_on_where_it_was_or_lists_anew(kind: str) -> None:
    reason, relists = FAULTS_OF_EVENTS[kind]
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url) as told:
            await one_pod(server, told)
            server.faults.plan("event", Fault(kind, size=30_000))
            server.cluster.apply(pod("b", "10.0.0.2"))
            server.cluster.delete(pod("a"))
            await told.until_addresses(TWO)
            status = told.discovery.status
            assert status.failures == {reason: 1}
            assert (status.lists, status.relists) == (1 + relists, relists)


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_a_watch_that_is_refused_resumes_without_a_list(status: int) -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("watch", Fault("status", status), Fault("silent"), Fault("close"))
        async with discovering(server.url, limits=IMPATIENT) as told:
            await told.until_addresses(ONE)
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until_addresses(ONE, TWO)
            assert told.discovery.status.lists == 1
            assert told.discovery.status.failures["timeout"] >= 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 504, message="Too large resource version: 120, current: 7"),
        Fault("status", 400, message="invalid resource version"),
    ],
)
async def test_a_version_that_a_restored_server_does_not_know_is_given_up(fault: Fault) -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("watch", fault)
        async with discovering(server.url) as told:
            await one_pod(server, told)
            assert told.discovery.status.relists == 1


@pytest.mark.parametrize("by_status", [False, True])
async def test_after_a_compaction_what_vanished_meanwhile_is_gone(by_status: bool) -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
        async with discovering(server.url) as told:
            await told.until_addresses(ONE, TWO)
            await server.stop()
            server.cluster.delete(pod("a"))
            server.cluster.apply(pod("c", "10.0.0.3"))
            server.cluster.compact()
            if by_status:
                server.faults.plan("watch", Fault("status", 410))
            await server.start()
            await told.until_addresses(TWO, THREE)
            assert told.discovery.status.failures["gone"] == 1
            assert told.discovery.status.relists == 1


async def test_a_bookmark_lets_a_watch_resume_after_a_compaction() -> None:
    async with ApiServer() as server:
        server.bookmark_seconds = 0.02
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url) as told:
            await one_pod(server, told)
            server.cluster.apply(pod("web", "10.0.0.9", labels={"app": "web"}))
            events = told.discovery.status.events
            seen = events["BOOKMARK"]
            await server.until(lambda: events["BOOKMARK"] > seen + 1)
            server.cluster.compact()
            server.disconnect()
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until_addresses(ONE, TWO)
            assert told.discovery.status.relists == 0
            assert told.discovery.status.failures["gone"] == 0


async def test_a_continue_token_that_expires_starts_the_list_again() -> None:
    async with ApiServer() as server:
        server.cluster.apply(*(pod(f"p{n}", f"10.0.0.{n}") for n in range(1, 8)))
        server.faults.plan("list", Fault("slow"), Fault("status", 410))
        async with discovering(server.url) as told:
            await told.until(lambda told: len(told.addresses) == 7)
            assert told.discovery.status.failures == {"gone": 1}
            assert [("continue" in r.parameters) for r in server.requests[:5]] == [
                *(False, True),
                *(False, True, True),
            ]


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones() -> None:
    large = {"notes": "x" * 90_000}
    async with ApiServer() as server:
        server.cluster.apply(*(pod(f"p{n}", f"10.0.0.{n}", annotations=large) for n in range(1, 4)))
        async with discovering(server.url) as told:
            await told.until_addresses(ONE, TWO, THREE)
            assert told.discovery.status.failures == {"too_large": 1}
            assert [r.parameters.get("limit") for r in server.requests[:4]] == ["3", "1", "1", "1"]


async def test_a_server_that_is_away_is_waited_for_and_pods_stay() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url) as told:
            await one_pod(server, told)
            status = told.discovery.status
            with capture_logs() as logs:
                await server.stop()
                await server.until(lambda: status.failures["unreachable"] >= 5)
                assert not status.is_watched
                before = status.age_seconds()
                assert before is not None
                await server.until(lambda: (status.age_seconds() or 0) > before)
                await server.start()
                await server.until(lambda: server.watches == 1)
                server.cluster.apply(pod("b", "10.0.0.2"))
                await told.until_addresses(ONE, TWO)
            assert told.history == [{ONE}, {ONE, TWO}]
            assert [entry["event"] for entry in logs] == ["kubernetes_fails", "kubernetes_answers"]
            assert logs[0]["reason"] == "unreachable"
            assert status.relists == 0
            assert status.is_watched


async def test_connections_that_end_now_and_then_are_counted_but_not_logged() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url) as told:
            await one_pod(server, told)
            with capture_logs() as logs:
                for number in range(2, 6):
                    server.disconnect()
                    await server.until(lambda: server.watches == 1)
                    server.cluster.apply(pod(f"p{number}", f"10.0.0.{number}"))
                    await told.until(lambda told, n=number: len(told.addresses) == n)  # type: ignore[misc]
            assert not logs
            assert told.discovery.status.failures["disconnected"] >= 4


async def test_a_connection_that_ends_each_time_is_logged_once() -> None:
    async with ApiServer() as server:
        server.faults.forever["list"] = Fault("close")
        with capture_logs() as logs:
            async with discovering(server.url) as told:
                failures = told.discovery.status.failures
                await server.until(lambda: failures["disconnected"] >= 6)
                assert told.discovery.status.age_seconds() is None
                assert not told.history
        assert [(entry["event"], entry["reason"]) for entry in logs] == [
            ("kubernetes_fails", "disconnected")
        ]


async def test_a_server_that_throttles_is_left_alone_for_as_long_as_it_says() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("list", Fault("status", 429, retry_after=1))
        started_at = time.monotonic()
        async with discovering(server.url) as told:
            await told.until_addresses(ONE)
            assert time.monotonic() - started_at >= 1.0


async def test_a_watch_ends_in_time_and_is_asked_for_anew_where_it_was() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        async with discovering(server.url, pace=quick(1.0)) as told:
            await one_pod(server, told)
            watched = [r for r in server.requests if r.verb == "watch"]
            await server.until(lambda: len(server.requests) >= 4)
            assert not told.discovery.status.failures
            assert told.discovery.status.lists == 1
            assert watched[0].parameters["timeoutSeconds"] == "1"


async def test_a_watch_that_does_not_end_is_given_up_in_time() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("watch", Fault("quiet"))
        async with discovering(server.url, pace=quick(1.0), limits=IMPATIENT) as told:
            await one_pod(server, told)
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until_addresses(ONE, TWO)
            assert told.discovery.status.failures["timeout"] >= 1


@pytest.mark.parametrize("kind", ["end", "error", "gone"])
async def test_a_watch_that_ends_at_once_is_not_asked_for_without_a_pause(kind: str) -> None:
    pace = Pace(5.0, backoff_first=0.2, backoff_limit=0.2)
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.forever["watch"] = Fault(kind)
        async with discovering(server.url, pace=pace) as told:
            await told.until_addresses(ONE)
            started_at = time.monotonic()
            await server.until(lambda: len(server.requests) >= 12)
            assert time.monotonic() - started_at >= 0.4, "each pause is at least 0.1 s"
            assert (told.discovery.status.lists == 1) == (kind == "end")
            assert told.history == [{ONE}]


async def test_a_slow_answer_is_waited_for_and_a_slow_event_applied() -> None:
    async with ApiServer() as server:
        server.cluster.apply(pod("a", "10.0.0.1"))
        server.faults.plan("list", Fault("slow"))
        server.faults.plan("event", Fault("slow"))
        async with discovering(server.url) as told:
            await told.until_addresses(ONE)
            server.cluster.apply(pod("b", "10.0.0.2"))
            await told.until_addresses(ONE, TWO)
            assert not told.discovery.status.failures


async def test_many_changes_at_once_are_told_in_few_tellings() -> None:
    async with ApiServer() as server, discovering(server.url) as told:
        await server.until(lambda: server.watches == 1)
        server.cluster.apply(*(pod(f"p{n}", f"10.0.{n // 200}.{n % 200}") for n in range(600)))
        await told.until(lambda told: len(told.addresses) == 600)
        assert told.discovery.status.events["ADDED"] == 600
        assert len(told.history) < 60


async def test_an_event_of_an_unknown_type_is_counted_and_the_next_applied() -> None:
    class Odd(Cluster):
        def events(self, scope: object, after: int) -> list:  # type: ignore[type-arg]
            found = super().events(scope, after)  # type: ignore[arg-type]
            return [(after, "RENAMED", {}), *found] if found else []

    async with ApiServer(Odd()) as server, discovering(server.url) as told:
        await told.until_addresses()
        server.cluster.apply(pod("a", "10.0.0.1"))
        await told.until_addresses(ONE)
        assert told.discovery.status.skipped.counts["event"] >= 1


async def test_a_discovery_that_is_cancelled_leaves_no_connection() -> None:
    async with ApiServer() as server:
        async with discovering(server.url, limits=LIMITS) as told:
            await told.until_addresses()
            await server.until(lambda: server.watches == 1)
        await server.until(lambda: server.watches == 0)
    assert len(asyncio.all_tasks()) <= 2
