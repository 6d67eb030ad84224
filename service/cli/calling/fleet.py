"""`kvatlas pods`, and what is done to a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import discovery_pb2

from service.cli.calling.calls import ask

if TYPE_CHECKING:
    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def pods(options: Options) -> int:
    """List the pods, or watch them. Returns the exit status."""
    if options.watch:
        from service.cli.calling.watching import watch  # not needed to list them

        return watch(options)

    return ask(options, lambda client: client.list_pods(options.model), _pods, administration=True)


def forget(options: Options) -> int:
    """Remove a pod from the index. Returns the exit status."""
    return ask(
        options,
        lambda client: client.forget_pod(options.pod),
        lambda _: [f"{options.pod} is forgotten"],
        administration=True,
    )


def resync(options: Options) -> int:
    """Learn again what a pod holds. Returns the exit status."""

    def shown(answer: Any) -> list[Part]:
        from service.cli.screen.answers import resync  # rich is not needed for JSON

        return resync(options.pod, answer)

    return ask(options, lambda client: client.resync_pod(options.pod), shown, administration=True)


def discovered(options: Options) -> int:
    """List the discovered pods. Returns the exit status."""

    def shown(answer: Any) -> list[Part]:
        from service.cli.screen.discovery import discovered  # rich is not needed for JSON

        return discovered(answer)

    return ask(options, lambda client: client.list_discovered_pods(), shown, administration=True)


def register(options: Options) -> int:
    """Register a pod. Returns the exit status."""
    request = discovery_pb2.RegisterPodRequest(
        url=options.url,
        model=options.model,
        roles=options.role,
        node=options.node,
        ttl_seconds=options.ttl,
    )
    return ask(
        options,
        lambda client: client.register_pod(request),
        lambda answer: [f"{answer.pod} is registered"],
        administration=True,
    )


def unregister(options: Options) -> int:
    """Undo the registration of a pod. Returns the exit status."""
    return ask(
        options,
        lambda client: client.unregister_pod(options.pod),
        lambda _: [f"{options.pod} is not registered any more"],
        administration=True,
    )


def _pods(answer: Any) -> list[Part]:
    from service.cli.screen.answers import pods  # rich is not needed for JSON

    return pods(answer)
