"""`kvatlas pods`, `pods forget` and `pods resync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def _pods(answer: Any) -> list[Part]:
    from service.cli.screen.answers import pods  # rich is not needed for JSON

    return pods(answer)
