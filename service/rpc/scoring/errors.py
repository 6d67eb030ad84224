"""What the caller is told of one prompt among several that could not be scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvatlas.v1 import routing_pb2

if TYPE_CHECKING:
    from service.rpc.bounds import Refusal


def score_error(refusal: Refusal) -> routing_pb2.ScoreError:
    """Return the error in an answer that says what the call would have ended with."""
    code, _ = refusal.status.value
    limit = f"limits.{refusal.limit}" if refusal.limit else ""
    return routing_pb2.ScoreError(
        code=code, message=refusal.text, reason=refusal.reason, limit=limit
    )
