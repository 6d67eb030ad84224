"""The methods of the service, and what all calls of a client share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kvatlas.v1 import (
    discovery_pb2_grpc,
    explain_pb2_grpc,
    fleet_pb2_grpc,
    routing_pb2_grpc,
    scoring_pb2_grpc,
    tokenization_pb2_grpc,
)

from kvatlas_client.errors import of_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from kvatlas.v1.routing_pb2 import ScoreError

    from kvatlas_client.errors import KvatlasError
    from kvatlas_client.retries import Retry

Metadata = tuple[tuple[str, str], ...]
Result = TypeVar("Result")


class Stubs:
    """The methods of every service of `kvatlas.v1`, on one channel."""

    def __init__(self, channel: Any) -> None:
        self.scoring: Any = scoring_pb2_grpc.ScoringServiceStub(channel)
        self.routing: Any = routing_pb2_grpc.RoutingServiceStub(channel)
        self.tokenization: Any = tokenization_pb2_grpc.TokenizationServiceStub(channel)
        self.explain: Any = explain_pb2_grpc.ExplainServiceStub(channel)
        self.discovery: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        self.fleet: Any = fleet_pb2_grpc.FleetServiceStub(channel)


@dataclass(frozen=True, slots=True)
class CallSettings:
    """What all calls of a client share. Raises ValueError for a timeout that is none."""

    timeout: float
    """Seconds that a call may take if it does not say itself."""
    token: str | Callable[[], str]
    """A bearer token, or what returns the present one. Empty: none is sent."""
    retry: Retry

    def __post_init__(self) -> None:
        """Check the timeout."""
        self.seconds(self.timeout)

    def seconds(self, timeout: float | None) -> float:
        """Return what a call may take. Raises ValueError if that is no time."""
        if timeout is None:
            return self.timeout
        if not timeout > 0:
            raise ValueError(f"timeout: {timeout} is not more than 0 seconds")
        return timeout

    def metadata(self) -> Metadata:
        """Return what is sent with a call."""
        token = self.token() if callable(self.token) else self.token
        return (("authorization", f"Bearer {token}"),) if token else ()


def results(
    responses: Iterable[Result], errors: Mapping[int, ScoreError]
) -> list[Result | KvatlasError]:
    """Return one response or one error for each of several requests, in their order."""
    return [
        of_answer(errors[number]) if number in errors else response
        for number, response in enumerate(responses)
    ]
