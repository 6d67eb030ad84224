"""What an engine tells -> the sources of its events, and what contradicts the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from service.diagnostics import Finding
from service.engines.endpoints import reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Set as AbstractSet

    from service.engines.facts import EngineFacts, EventPublisher

_EVENTS_FLAG = {
    "vllm": """--kv-events-config '{"enable_kv_cache_events": true, "publisher": "zmq", """
    """"endpoint": "tcp://*:5557", "replay_endpoint": "tcp://*:5657"}'""",
    "sglang": """--kv-events-config '{"publisher": "zmq", "endpoint": "tcp://*:5557", """
    """"replay_endpoint": "tcp://*:5657"}'""",
}
_CACHING_FLAG = {"vllm": "with --enable-prefix-caching", "sglang": "without --disable-radix-cache"}


class RankSource(NamedTuple):
    """Where the events of one rank come from."""

    endpoint: str
    topic: str
    pod: str
    model: str
    rank: int
    replay: str
    """Empty: there is none."""


class PodSources(NamedTuple):
    """Where a pod's events come from, and what looks wrong with them."""

    ranks: tuple[RankSource, ...]
    findings: tuple[Finding, ...]


class Expectations(NamedTuple):
    """What others say, which engines may contradict."""

    block_size_of: Callable[[str], int]
    """Takes a model."""
    is_bound: bool
    """Whether engines may connect here to publish."""
    rank: int | None = None
    """The rank, if whoever discovered the pod knows that it is one rank of an engine."""
    model: str = ""
    """The model, if whoever discovered the pod knows it."""
    most_ranks: int = 1024
    """Ranks of a pod, which count from 0; further ones are not listened to."""


def sources_of(
    url: str, facts: EngineFacts, addresses: AbstractSet[str], expected: Expectations
) -> PodSources:
    """The sources of a pod's events.

    Args:
        url: of the pod's API.
        facts: what its engine tells.
        addresses: the IP addresses behind the host in the URL.
        expected: what others say.
    """
    pod = url.partition("://")[2]
    model = expected.model or facts.models[0]
    ranks, elsewhere, most = [], [], expected.most_ranks
    is_rank = expected.rank is not None and len(facts.publishers) == 1
    for publisher in [publisher for publisher in facts.publishers if publisher.rank < most]:
        rank = expected.rank if expected.rank is not None and is_rank else publisher.rank
        if endpoint := reachable(publisher.endpoint, url, addresses):
            replay = reachable(publisher.replay, url, addresses)
            ranks.append(RankSource(endpoint, publisher.topic, pod, model, rank, replay))
        else:
            elsewhere.append(publisher)
    findings = [
        Finding(kind, model, (pod,), detail)
        for kind, detail in (
            *_publishing(facts, ranks, elsewhere, expected),
            *_caching(facts, model, expected),
        )
    ]
    return PodSources(tuple(ranks), tuple(findings))


def _publishing(
    facts: EngineFacts,
    ranks: list[RankSource],
    elsewhere: list[EventPublisher],
    expected: Expectations,
) -> Iterator[tuple[str, str]]:
    if not facts.publishers:
        flag = _EVENTS_FLAG[facts.engine]
        yield "no_events", f"the engine publishes no KV events: start it with {flag}"
    if highest := [p.rank for p in facts.publishers if p.rank >= expected.most_ranks]:
        yield (
            "too_many_ranks",
            (
                f"the engine tells of a rank {max(highest)}, and ranks from {expected.most_ranks} "
                "on are not listened to: events.ranks"
            ),
        )
    if elsewhere and not expected.is_bound:
        endpoints = ", ".join(sorted({publisher.endpoint for publisher in elsewhere}))
        yield (
            "events_elsewhere",
            (
                f"the engine publishes to {endpoints}, which is not its own address: let it bind "
                "tcp://*:5557, or let kvatlas bind that address with --bind"
            ),
        )
    if silent := [str(rank.rank) for rank in ranks if not rank.replay]:
        yield (
            "no_replay",
            (
                f"the engine has no replay socket (ranks {', '.join(silent[:8])}), so what is lost "
                'is lost: add "replay_endpoint": "tcp://*:5657" to its --kv-events-config'
            ),
        )


def _caching(facts: EngineFacts, model: str, expected: Expectations) -> Iterator[tuple[str, str]]:
    if facts.prefix_caching is False:
        yield (
            "no_prefix_caching",
            f"the engine reuses no prefixes: start it {_CACHING_FLAG[facts.engine]}",
        )
    if model not in facts.models:
        yield (
            "models_differ",
            (
                f"whoever discovered the pod says that it serves {model!r}; the engine says "
                f"{', '.join(facts.models[:4])}"
            ),
        )
    ours, engines = expected.block_size_of(model), facts.block_size
    if engines is not None and ours % engines and engines % ours:
        yield (
            "block_size_unfit",
            (
                f"the engine's blocks have {engines} tokens, kvatlas's {ours}; as neither divides "
                f"the other, counts fall short: set --index.block-size {engines}, or block_size in "
                "[[models]]"
            ),
        )
