"""Background loops: one that dies is seen, and runs again."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from service.loops import Loops


def test_a_loop_that_dies_is_logged_counted_and_started_again() -> None:
    async def main() -> None:
        alive = asyncio.Event()
        runs = 0

        async def loop() -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise ValueError("malformed")
            if runs == 2:
                return
            alive.set()
            await asyncio.Event().wait()

        async with Loops() as loops:
            with capture_logs() as logs:
                loops.start("follow 3", loop)
                async with asyncio.timeout(10):
                    await alive.wait()
            assert loops.deaths == {"follow 3": 2}
            assert [(entry["event"], entry["loop"]) for entry in logs] == [
                ("loop_died", "follow 3")
            ] * 2
        assert runs == 3

    asyncio.run(main())


def test_a_loop_that_dies_leaves_the_others_alone() -> None:
    async def main() -> None:
        stopped = []
        dead = asyncio.Event()

        async def dies() -> None:
            dead.set()
            raise KeyError

        async def lives(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(name)

        async with Loops() as loops:
            loops.start("one", lambda: lives("one"))
            loops.start("two", lambda: lives("two"))
            loops.start("dies", dies)
            async with asyncio.timeout(10):
                await dead.wait()
            assert not stopped
            await loops.stop("two")
            assert stopped == ["two"]
        assert stopped == ["two", "one"]

    asyncio.run(main())
