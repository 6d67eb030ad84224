"""`kvatlas pods`, `pods forget` and `pods resync`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvatlas.v1 import fleet_pb2, fleet_pb2_grpc

from service.cli.calling.calls import ask

if TYPE_CHECKING:
    import grpc

    from service.cli.flags.command import Options
    from service.cli.screen.tables import Part


def pods(options: Options) -> int:
    """List the pods, or watch them. Returns the exit status."""
    if options.watch:
        from service.cli.calling.watching import watch  # not needed to list them

        return watch(options)

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ListPodsRequest(model=options.model)
        return fleet_pb2_grpc.FleetServiceStub(channel).ListPods(request, **how)

    return ask(options, call, _pods, administration=True)


def forget(options: Options) -> int:
    """Remove a pod from the index. Returns the exit status."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ForgetPodRequest(pod=options.pod)
        return fleet_pb2_grpc.FleetServiceStub(channel).ForgetPod(request, **how)

    return ask(options, call, lambda _: [f"{options.pod} is forgotten"], administration=True)


def resync(options: Options) -> int:
    """Learn again what a pod holds. Returns the exit status."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ResyncPodRequest(pod=options.pod)
        return fleet_pb2_grpc.FleetServiceStub(channel).ResyncPod(request, **how)

    def shown(answer: Any) -> list[Part]:
        from service.cli.screen.answers import resync  # rich is not needed for JSON

        return resync(options.pod, answer)

    return ask(options, call, shown, administration=True)


def _pods(answer: Any) -> list[Part]:
    from service.cli.screen.answers import pods  # rich is not needed for JSON

    return pods(answer)
