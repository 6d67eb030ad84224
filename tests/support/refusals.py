"""What a caller is told of a call that failed."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2


class Refusal(NamedTuple):
    """A status, its text, and what google.rpc.ErrorInfo says."""

    code: grpc.StatusCode
    text: str
    reason: str
    metadata: dict[str, str]


async def refusal(call: Awaitable[object]) -> Refusal:
    """What the caller is told of a call, which must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return refusal_of(raised.value)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What an error tells the caller."""
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "kvatlas"
    return Refusal(error.code(), error.details() or "", info.reason, dict(info.metadata))
