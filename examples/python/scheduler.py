"""Sends each prompt to the pod that holds most of it, and tells kvatlas what became of it.

Prompts are lines of token ids on standard input. Each is scored on one long stream within a few
milliseconds; without an answer in time the pods take turns. The request then goes to the pod's
/v1/completions, as to vLLM or SGLang, and what the engine says about its cache is reported.

    seq -s' ' 1 64 | python scheduler.py --model my-model --pod 10.0.0.1:8000 --pod 10.0.0.2:8000
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

from kvatlas_client import AsyncClient, KvatlasError, score_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvatlas_client import AsyncScoreStream


class Scheduler:
    """Chooses a pod for each prompt, and reports what the choice was worth."""

    def __init__(
        self, stream: AsyncScoreStream, model: str, pods: list[str], score_seconds: float
    ) -> None:
        self._stream = stream
        self._model = model
        self._pods = pods
        self._score_seconds = score_seconds
        self._turns: Iterator[str] = itertools.cycle(pods)
        self._sent = dict.fromkeys(pods, 0)  # requests that each pod has not answered yet

    async def serve(self, token_ids: list[int]) -> dict[str, Any]:
        """Send one prompt to a pod, and return what is worth printing about it."""
        pod, handle = await self._choose(token_ids)
        self._sent[pod] += 1
        try:
            recording = asyncio.create_task(self._record(handle, pod))  # the request need not wait
            answer = await asyncio.to_thread(complete, pod, self._model, token_ids)
            await recording
        finally:
            self._sent[pod] -= 1
        details = answer.get("usage", {}).get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens")
        promised = await self._report(handle, cached)
        return {"pod": pod, "cached_tokens": cached, "promised_tokens": promised}

    async def _choose(self, token_ids: list[int]) -> tuple[str, bytes]:
        """Return the pod to use, and the handle of the answer; empty if there is none."""
        request = score_request(self._model, token_ids, pods=self._pods, want_handle=True)
        try:
            answer = await self._stream.score(request, timeout=self._score_seconds)
        except KvatlasError as error:
            print(f"scheduled without scores: {error}", file=sys.stderr)
            return next(self._turns), b""
        if not answer.best:  # no pod holds anything
            return next(self._turns), answer.handle
        best = [answer.pods[index].pod for index in answer.best]
        return min(best, key=self._sent.__getitem__), answer.handle

    async def _record(self, handle: bytes, pod: str) -> None:
        """Say where the request went, so that the next one like it can be sent there too."""
        if handle:
            try:
                await self._stream.record_routing(handle, pod)
            except KvatlasError as error:
                print(f"not recorded: {error}", file=sys.stderr)

    async def _report(self, handle: bytes, cached: int | None) -> int | None:
        """Say what the engine had cached: the number of tokens that the answer had promised."""
        if not handle or cached is None:
            return None
        try:
            return (await self._stream.report_outcome(handle, cached)).promised_tokens
        except KvatlasError as error:  # such as that the request took longer than handles are kept
            print(f"not reported: {error}", file=sys.stderr)
            return None


def complete(pod: str, model: str, token_ids: list[int]) -> dict[str, Any]:
    """Send a prompt to a pod and return its answer."""
    body = {"model": model, "prompt": token_ids, "max_tokens": 1}
    request = urllib.request.Request(
        f"http://{pod}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)  # type: ignore[no-any-return]


async def schedule(options: argparse.Namespace) -> None:
    """Serve every prompt on standard input, all of them at the same time."""
    async with AsyncClient(options.server) as client, client.score_stream() as stream:
        scheduler = Scheduler(stream, options.model, options.pod, options.score_ms / 1000)
        async with asyncio.TaskGroup() as serving:
            tasks = [
                serving.create_task(scheduler.serve([int(word) for word in line.split()]))
                for line in sys.stdin
                if line.strip()
            ]
        for task in tasks:
            print(json.dumps(task.result()))


def main() -> None:
    """Read the command line, and schedule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:50051", help="address of kvatlas")
    parser.add_argument("--model", required=True)
    parser.add_argument("--pod", action="append", required=True, help="ip:port; several times")
    parser.add_argument("--score-ms", type=float, default=5.0, help="what a score may take")
    asyncio.run(schedule(parser.parse_args()))


if __name__ == "__main__":
    main()
