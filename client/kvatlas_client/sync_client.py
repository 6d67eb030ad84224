"""Calls the service, from any thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc
from kvatlas.v1 import (
    discovery_pb2,
    explain_pb2,
    fleet_pb2,
    routing_pb2,
    scoring_pb2,
    tokenization_pb2,
)

from kvatlas_client.calls import CallSettings, Stubs, results
from kvatlas_client.channels import Endpoint
from kvatlas_client.errors import of_call
from kvatlas_client.requests import outcome_request, routing_request
from kvatlas_client.retries import DEFAULT_RETRY
from kvatlas_client.sync_stream import ScoreStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kvatlas_client.channels import Balance, Options, Tls
    from kvatlas_client.errors import KvatlasError
    from kvatlas_client.requests import OutcomeOptions, RoutingOptions
    from kvatlas_client.retries import Retry


class Client:
    """Calls the service; `with` or `close` ends its connections. Threads may share it.

    Every method takes a `timeout` in seconds, of all its attempts together, and raises
    KvatlasError. Messages are those of `kvatlas.v1`; their comments in the .proto files say what
    each field means.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        tls: Tls | None = None,
        token: str | Callable[[], str] = "",
        timeout: float = 1.0,
        retry: Retry = DEFAULT_RETRY,
        balance: Balance = "round_robin",
        options: Options = (),
    ) -> None:
        """See `Endpoint` and `CallSettings`. Raises ValueError; connects with the first call."""
        endpoint = Endpoint(addresses, tls, balance, retry, options)
        target, arguments = endpoint.target(), endpoint.arguments()
        self.settings = CallSettings(timeout, token, retry)
        """What all calls share: timeout, token, retries."""
        self.channel: grpc.Channel = (
            grpc.insecure_channel(target, arguments)
            if tls is None
            else grpc.secure_channel(target, tls.credentials(), arguments)
        )
        """The channel of gRPC, for calls to other services such as grpc.health.v1.Health."""
        self._stubs = Stubs(self.channel)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; calls under way fail as CANCELLED."""
        self.channel.close()

    def score(
        self, request: scoring_pb2.ScoreRequest, *, timeout: float | None = None
    ) -> scoring_pb2.ScoreResponse:
        """Score one prompt."""
        answer: scoring_pb2.ScoreResponse = self._call(self._stubs.scoring.Score, request, timeout)
        return answer

    def score_many(
        self, requests: Iterable[scoring_pb2.ScoreRequest], *, timeout: float | None = None
    ) -> list[scoring_pb2.ScoreResponse | KvatlasError]:
        """Score several prompts: an answer or an error for each, in their order."""
        many = scoring_pb2.ScoreManyRequest(requests=requests)
        answer = self._call(self._stubs.scoring.ScoreMany, many, timeout)
        return results(answer.responses, answer.errors)

    def score_stream(self, *, most_in_flight: int = 64) -> ScoreStream:
        """Open a stream, the cheapest way to score: see ScoreStream.

        Args:
            most_in_flight: requests that are under way at the same time; further ones wait here.
                The service reads no more than its `limits.stream_requests`.
        """
        open_call = self._stubs.scoring.ScoreStream
        return ScoreStream(
            lambda messages: open_call(messages, metadata=self.settings.metadata()),
            self.settings,
            most_in_flight,
        )

    def record_routing(
        self,
        handle: bytes,
        pod: str,
        *,
        timeout: float | None = None,
        **options: Unpack[RoutingOptions],
    ) -> routing_pb2.RecordRoutingResponse:
        """Record where a request was sent; for the options see RoutingOptions."""
        request = routing_request(handle, pod, **options)
        answer: routing_pb2.RecordRoutingResponse
        answer = self._call(self._stubs.routing.RecordRouting, request, timeout)
        return answer

    def record_routings(
        self, requests: Iterable[routing_pb2.RecordRoutingRequest], *, timeout: float | None = None
    ) -> list[routing_pb2.RecordRoutingResponse | KvatlasError]:
        """Record several routings: an answer or an error for each, in their order."""
        many = routing_pb2.RecordRoutingsRequest(requests=requests)
        answer = self._call(self._stubs.routing.RecordRoutings, many, timeout)
        return results(answer.responses, answer.errors)

    def report_outcome(
        self,
        handle: bytes,
        cached_tokens: int,
        *,
        timeout: float | None = None,
        **options: Unpack[OutcomeOptions],
    ) -> routing_pb2.ReportOutcomeResponse:
        """Report what the engine had cached; for the options see OutcomeOptions."""
        request = outcome_request(handle, cached_tokens, **options)
        answer: routing_pb2.ReportOutcomeResponse
        answer = self._call(self._stubs.routing.ReportOutcome, request, timeout)
        return answer

    def report_outcomes(
        self, requests: Iterable[routing_pb2.ReportOutcomeRequest], *, timeout: float | None = None
    ) -> list[routing_pb2.ReportOutcomeResponse | KvatlasError]:
        """Report several outcomes: an answer or an error for each, in their order."""
        many = routing_pb2.ReportOutcomesRequest(requests=requests)
        answer = self._call(self._stubs.routing.ReportOutcomes, many, timeout)
        return results(answer.responses, answer.errors)

    def tokenize(
        self, request: tokenization_pb2.TokenizeRequest, *, timeout: float | None = None
    ) -> tokenization_pb2.TokenizeResponse:
        """Compute the token ids of a text or a request."""
        answer: tokenization_pb2.TokenizeResponse
        answer = self._call(self._stubs.tokenization.Tokenize, request, timeout)
        return answer

    def list_pods(
        self, model: str = "", *, timeout: float | None = None
    ) -> fleet_pb2.ListPodsResponse:
        """List the pods, of one model or of all. The address is that of `admin.listen`."""
        request = fleet_pb2.ListPodsRequest(model=model)
        answer: fleet_pb2.ListPodsResponse
        answer = self._call(self._stubs.fleet.ListPods, request, timeout)
        return answer

    def forget_pod(self, pod: str, *, timeout: float | None = None) -> None:
        """Forget a pod with all its ranks; see ListPods."""
        request = fleet_pb2.ForgetPodRequest(pod=pod)
        self._call(self._stubs.fleet.ForgetPod, request, timeout)

    def resync_pod(self, pod: str, *, timeout: float | None = None) -> fleet_pb2.ResyncPodResponse:
        """Learn again what a pod holds; see ListPods."""
        request = fleet_pb2.ResyncPodRequest(pod=pod)
        answer: fleet_pb2.ResyncPodResponse
        answer = self._call(self._stubs.fleet.ResyncPod, request, timeout)
        return answer

    def list_discovered_pods(
        self, *, timeout: float | None = None
    ) -> discovery_pb2.ListDiscoveredPodsResponse:
        """List the pods that were discovered; served at the address of the administration."""
        request = discovery_pb2.ListDiscoveredPodsRequest()
        answer: discovery_pb2.ListDiscoveredPodsResponse
        answer = self._call(self._stubs.discovery.ListDiscoveredPods, request, timeout)
        return answer

    def register_pod(
        self, request: discovery_pb2.RegisterPodRequest, *, timeout: float | None = None
    ) -> discovery_pb2.RegisterPodResponse:
        """Let the service ask a pod and listen to it; as list_discovered_pods."""
        answer: discovery_pb2.RegisterPodResponse
        answer = self._call(self._stubs.discovery.RegisterPod, request, timeout)
        return answer

    def unregister_pod(self, pod: str, *, timeout: float | None = None) -> None:
        """Undo register_pod, given the pod's name."""
        request = discovery_pb2.UnregisterPodRequest(pod=pod)
        self._call(self._stubs.discovery.UnregisterPod, request, timeout)

    def watch_pods(
        self, model: str = "", pods: Iterable[str] = (), *, timeout: float | None = None
    ) -> Iterator[fleet_pb2.WatchPodsResponse]:
        """Yield the states of ranks, first the present ones, then each change; see ListPods.

        Without a timeout it goes on until the caller closes it or the service stops.
        """
        request = fleet_pb2.WatchPodsRequest(model=model, pods=pods)
        metadata = self.settings.metadata()
        call = self._stubs.fleet.WatchPods(request, timeout=timeout, metadata=metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise of_call(error) from None
        finally:
            call.cancel()

    def explain(
        self, request: scoring_pb2.ScoreRequest, *, timeout: float | None = None
    ) -> explain_pb2.ExplainResponse:
        """Explain the scores of one prompt, for people."""
        explained = explain_pb2.ExplainRequest(score=request)
        answer: explain_pb2.ExplainResponse
        answer = self._call(self._stubs.explain.Explain, explained, timeout)
        return answer

    def lookup_blocks(
        self, request: explain_pb2.LookupBlocksRequest, *, timeout: float | None = None
    ) -> explain_pb2.LookupBlocksResponse:
        """Say who holds some blocks, and which events touched them last."""
        answer: explain_pb2.LookupBlocksResponse
        answer = self._call(self._stubs.explain.LookupBlocks, request, timeout)
        return answer

    def _call(self, method: Any, request: Any, timeout: float | None) -> Any:
        seconds = self.settings.seconds(timeout)
        try:
            return method(request, timeout=seconds, metadata=self.settings.metadata())
        except grpc.RpcError as error:
            raise of_call(error) from None
