"""Makes the parts of the service from its configuration; `application` wires them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from indexer import COMPILED, KeyScheme, MemoryIndex, ReplicatedIndex
from kvevents import EventPolicy, Listener, Source
from service.discovery import DiscoveredFleet, DnsPods, FilePods, RegisteredPods, StaticPods
from service.engines import Expectations
from service.records import SnapshotError
from service.routing import OutcomeLimits, Routing, RoutingLimits
from service.snapshot import KeySettings, RestoredIndex, Snapshots, read_snapshot
from tokenization import (
    ModelFiles,
    QueueLimits,
    RenderLimits,
    TokenizationLimits,
    Tokenizers,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from indexer import Worker
    from kvevents import Ownership
    from service.config import Configuration
    from service.discovery import Discovery, Registry
    from service.loops import Loops

_log = structlog.get_logger("kvatlas.service")


def make_scheme(configuration: Configuration, model: str) -> KeyScheme:
    """Return the scheme of a model's block keys."""
    return KeyScheme(model, configuration.block_size_of(model), configuration.index.hash_seed)


def make_replicated_index(configuration: Configuration) -> ReplicatedIndex:
    """Return an empty index that can be shared."""
    section = configuration.index
    return ReplicatedIndex(section.limit, section.tier_weights, section.count_copies)


def restore_index(configuration: Configuration) -> RestoredIndex:
    """Return what the snapshot holds, or an empty index; put aside what is refused.

    Raises SnapshotError if there can be no snapshot.
    """
    section, path = configuration.index, configuration.snapshot.path
    empty = RestoredIndex(
        MemoryIndex(section.limit, section.tier_weights, section.count_copies), [], None
    )
    if path is None:
        return empty
    if not path.parent.is_dir():
        raise SnapshotError(f"snapshot.path: there is no directory {path.parent}")
    try:
        restored = read_snapshot(
            path,
            _key_settings(configuration),
            section.limit,
            section.tier_weights,
            configuration.snapshot.oldest_seconds,
        )
    except FileNotFoundError:
        _log.info("no_snapshot", path=str(path))
    except (SnapshotError, OSError) as error:
        moved = _put_aside(path)
        _log.warning("snapshot_refused", path=str(path), detail=str(error), moved=moved)
    else:
        _log.info("snapshot_read", path=str(path), workers=len(restored.streams))
        return restored
    return empty


def _put_aside(path: Path) -> str:
    """Move a refused snapshot; returns where to, or why it could not be moved."""
    aside = path.with_name(path.name + ".refused")
    try:
        path.replace(aside)
    except OSError as error:  # such as in a directory that is read-only
        return f"no: {error}"
    return str(aside)


def make_snapshots(
    configuration: Configuration, index: MemoryIndex, listener: Listener, written_at: float | None
) -> Snapshots | None:
    """Return the writer of snapshots; None if none are configured."""
    section = configuration.snapshot
    if section.path is None:
        return None
    keys = _key_settings(configuration)
    return Snapshots(section.path, section.interval_seconds, index, listener, keys, written_at)


def _key_settings(configuration: Configuration) -> KeySettings:
    section = configuration.index
    return KeySettings(section.hash_seed, section.count_copies, configuration.block_size_of)


def make_tokenizers(configuration: Configuration) -> Tokenizers:
    """Return the tokenizers of all models, none of which is loaded yet."""
    section = configuration.tokenization
    configured = {
        model.name: model.tokenizer for model in configuration.models if model.tokenizer is not None
    }
    files = ModelFiles(
        configured, section.aliases, section.directories, section.hub_cache, section.download
    )
    options = {model.name: model.chat.options for model in configuration.models}
    limits = TokenizationLimits(
        QueueLimits(section.threads, section.queue, section.queue_bytes),
        RenderLimits(section.template_seconds, configuration.limits.text_bytes),
        section.template_memory,
        section.cache,
        section.memory,
    )
    return Tokenizers(files, options, limits)


def make_routing(
    configuration: Configuration, index: MemoryIndex, on_under_delivery: Callable[[Worker], None]
) -> Routing:
    """Return what records where requests were sent, and what came of it."""
    section = configuration.routing
    limits = RoutingLimits(
        memory=section.memory,
        handle_seconds=section.handle_seconds,
        outcome_seconds=section.outcome_seconds,
        open_outcomes=section.open_outcomes,
        under_delivery=OutcomeLimits(
            section.under_delivery_share,
            section.under_delivery_outcomes,
            section.under_delivery_seconds,
        ),
    )
    return Routing(index, limits, on_under_delivery)


def make_listener(
    configuration: Configuration,
    scheme_of: Callable[[str], KeyScheme],
    index: MemoryIndex,
    restored: list[dict[str, Any]],
    *,
    ownership: Ownership,
    on_change: Callable[[], None],
) -> Listener:
    """Return the listener, not started yet."""
    events = configuration.events
    policy = EventPolicy(
        count_copies=configuration.index.count_copies,
        forget_on_doubt=events.policy == "forget",
        stale_after=events.stale_seconds,
        departed_after=events.departed_seconds,
        poll_seconds=events.poll_seconds,
        waiting_bytes=events.waiting_limit,
        frame_limits=events.frame_limits,
        fleet_limits=events.fleet_limits,
    )
    return Listener(
        index,
        scheme_of,
        _make_sources(configuration),
        policy,
        replay_timeout=events.replay_timeout_seconds,
        concurrent_replays=events.concurrent_replays,
        socket_limits=events.socket_limits,
        restored=restored,
        ownership=ownership,
        on_change=on_change,
        settings_of=configuration.engine_settings_of,
    )


def _make_sources(configuration: Configuration) -> list[Source]:
    return [
        Source(
            **section.source_values(),
            default_model=configuration.default_model,
            pod_names=configuration.pod_names,
        )
        for section in configuration.sources
    ]


def make_fleet(
    configuration: Configuration,
    loops: Loops,
    listener: Listener,
    forget_pod: Callable[[str], Awaitable[bool]],
    registry: Registry,
    note_origin: Callable[[str, str], None],
) -> DiscoveredFleet:
    """Return what keeps the discovered pods, not started yet. Raises DiscoveryError."""
    section = configuration.discovery
    discoveries: list[Discovery] = [StaticPods(section.pods)] if section.pods else []
    discoveries += [DnsPods(url, section.dns_seconds) for url in section.dns]
    if section.file is not None:
        discoveries.append(FilePods(section.file))
    most = configuration.events.pods
    if section.registration:
        discoveries.append(RegisteredPods(registry, most))
    if section.kubernetes.is_enabled:
        from service.discovery.kubernetes import KubernetesDiscovery  # takes a while

        discoveries.append(KubernetesDiscovery(section.kubernetes, most))
    expected = Expectations(
        configuration.block_size_of,
        any(source.bind for source in configuration.sources),
        most_ranks=configuration.events.ranks,
    )
    return DiscoveredFleet(
        *(discoveries, loops, section, listener, forget_pod, expected, most), note_origin
    )


def warn_if_uncompiled() -> None:
    """Say in the log that this installation is slow."""
    if not COMPILED:
        _log.warning(
            "kernel_uncompiled",
            detail="the kernel runs as plain Python: scoring and events are many "
            "times slower than they could be",
        )
