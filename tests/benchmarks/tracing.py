"""What traces cost a call, against a service without them, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.kernel import PROMPTS
from benchmarks.rows import row
from benchmarks.service import Process, filled, kvatlas, packed_requests
from support.services.otlp import otlp_collector

_SCORE = "/kvatlas.v1.ScoringService/Score"
_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
_ROUNDS = 31
_REPEATS = 4  # of all prompts in a round


def trace_rows(transport: str = "http2", untraced: Callable[[], Any] | None = None) -> None:
    """Print what a call takes more: with nothing sent, not sampled, sampled.

    untraced: makes a service to compare with that has no traces at all.
    """
    requests = packed_requests()
    with ExitStack() as stack:
        collected = stack.enter_context(otlp_collector())
        chosen = f"--grpc.transport={transport}"
        off = stack.enter_context(kvatlas(chosen))
        on = stack.enter_context(
            kvatlas(chosen, f"--traces.endpoint={collected.url}", "--traces.sample-ratio=0")
        )
        ways: dict[str, tuple[Process, list[tuple[str, str]]]] = {
            "off": (off, []),
            "off, traceparent sent": (off, [("traceparent", _PARENT + "1")]),
            "on, no traceparent, not sampled": (on, []),
            "on, traceparent, not sampled": (on, [("traceparent", _PARENT + "0")]),
            "on, traceparent, sampled": (on, [("traceparent", _PARENT + "1")]),
        }
        if untraced is not None:
            ways["another service"] = (stack.enter_context(untraced()), [])
        for service in {id(way[0]): way[0] for way in ways.values()}.values():
            stack.enter_context(filled(service, 8))
        rounds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(_ROUNDS):
            turn = number % len(ways)  # whoever is first in a round has colder caches
            for name, (service, metadata) in [*ways.items()][turn:] + [*ways.items()][:turn]:
                rounds[name].append(_round_us(service, requests, metadata))
    used = {name: statistics.median(each[1:]) for name, each in rounds.items()}
    for name, value in used.items():
        pairs = zip(rounds[name][1:], rounds["off"][1:], strict=True)
        difference = statistics.median(one - other for one, other in pairs)
        row(
            f"Score, {transport}, traces {name}",
            f"{value:.0f} us",
            f"off: {used['off']:.0f} us, so {difference:+.0f} us",
            value / used["off"],
            "",
        )


def _round_us(service: Process, requests: list[bytes], metadata: list[tuple[str, str]]) -> float:
    call: Any = service.channel.unary_unary(_SCORE)
    before = service.cpu
    for _ in range(_REPEATS):
        for request in requests:
            call(request, metadata=metadata)
    return (service.cpu - before) / (_REPEATS * PROMPTS) * 1e6
