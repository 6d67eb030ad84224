"""`kvatlas score`, `tokenize`, `pods` and `health`: each makes one call to a running service."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kvatlas.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    tokenization_pb2,
    tokenization_pb2_grpc,
)

from service.cli import render
from service.cli.connection import UsageError, connect
from service.terminal import complain, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


_IMAGE = re.compile(r"(?P<hash>.+)@(?P<offset>\d+)\+(?P<length>\d+)")


def score(options: argparse.Namespace) -> int:
    """`kvatlas score`."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        prompt = scoring_pb2.Prompt(multimodal_items=[_item(image) for image in options.image])
        if options.text is not None:
            prompt.text = _or_stdin(options.text)
        elif options.chat is not None:
            prompt.chat_completion = _file_or_stdin(options.chat)
        else:
            prompt.token_ids.ids.extend(_token_ids(_or_stdin(options.tokens)))
        request = scoring_pb2.ScoreRequest(
            model=options.model,
            prompt=prompt,
            pods=options.pod,
            lora_name=options.lora,
            cache_salt=options.salt,
        )
        return scoring_pb2_grpc.ScoringServiceStub(channel).Score(request, **how)

    return _ask(options, call, render.scores)


def tokenize(options: argparse.Namespace) -> int:
    """`kvatlas tokenize`."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = tokenization_pb2.TokenizeRequest(
            model=options.model,
            add_special_tokens=not options.no_special_tokens,
        )
        if options.chat is not None:
            request.chat_completion = _file_or_stdin(options.chat)
        else:
            request.text = _or_stdin(options.text)
        stub = tokenization_pb2_grpc.TokenizationServiceStub(channel)
        return stub.Tokenize(request, **how)

    return _ask(options, call, render.token_ids)


def pods(options: argparse.Namespace) -> int:
    """`kvatlas pods`."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ListPodsRequest(model=options.model)
        return fleet_pb2_grpc.FleetServiceStub(channel).ListPods(request, **how)

    return _ask(options, call, render.pods)


def forget(options: argparse.Namespace) -> int:
    """`kvatlas pods forget`."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ForgetPodRequest(pod=options.pod)
        return fleet_pb2_grpc.FleetServiceStub(channel).ForgetPod(request, **how)

    return _ask(options, call, lambda _: f"{options.pod} is forgotten")


def resync(options: argparse.Namespace) -> int:
    """`kvatlas pods resync`."""

    def call(channel: grpc.Channel, **how: Any) -> Any:
        request = fleet_pb2.ResyncPodRequest(pod=options.pod)
        return fleet_pb2_grpc.FleetServiceStub(channel).ResyncPod(request, **how)

    return _ask(options, call, lambda answer: render.resync(options.pod, answer))


def health(options: argparse.Namespace) -> int:
    """`kvatlas health`: returns 0 if the service is ready, 1 if not."""
    try:
        connection = connect(options)
        with connection.channel as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=options.timeout)
    except UsageError as error:
        complain(str(error))
        return 2
    except grpc.RpcError as error:
        complain(f"{error.code().name}: {error.details()}")
        return 1
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(status)
    return 0 if status == "SERVING" else 1


def _ask(
    options: argparse.Namespace,
    call: Callable[..., Any],
    table: Callable[[Any], str],
) -> int:
    """Make one call and print its answer.

    Returns the exit status: 1 if the service refuses the call or cannot be reached, 2 if a flag's
    value is malformed.
    """
    try:
        connection = connect(options)
        try:
            with connection.channel as channel:
                answer = call(channel, timeout=options.timeout, metadata=connection.metadata)
        except grpc.RpcError as error:
            return explain(error, connection.address)
    except UsageError as error:
        complain(str(error))
        return 2
    if options.json:
        print(
            json_format.MessageToJson(
                answer,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        )
    else:
        print(printable(table(answer), lines=True))
    return 0


def explain(error: grpc.RpcError, server: str) -> int:
    """Print why a call to `server` failed, and return the exit status."""
    status, detail = error.code(), error.details()
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        detail = f"no answer from {server} ({detail}); is `kvatlas serve` running?"
    elif status is grpc.StatusCode.UNAUTHENTICATED:
        detail = f"{detail}; give one with --token-file"
    complain(f"{status.name}: {detail}")
    return 1


def _or_stdin(value: str) -> str:
    return sys.stdin.read() if value == "-" else value


def _file_or_stdin(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {error}") from None


def _token_ids(text: str) -> list[int]:
    try:
        ids = [int(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise UsageError(
            f"--tokens must be integers, separated by commas or spaces: {error}"
        ) from None
    if any(not 0 <= token < 2**32 for token in ids):
        raise UsageError("--tokens must be between 0 and 4294967295")
    return ids


def _item(image: str) -> scoring_pb2.MultimodalItem:
    match = _IMAGE.fullmatch(image)
    if match is None:
        raise UsageError(
            f"--image must be HASH@OFFSET+LENGTH, for example 9f2c@103+40, not {image!r}"
        )
    return scoring_pb2.MultimodalItem(
        hash=match["hash"], offset=int(match["offset"]), length=int(match["length"])
    )
