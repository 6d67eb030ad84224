"""The part of the service whose speed matters, compiled by Cython where there is a C compiler.

pod_scores  the matches of a prompt -> encoded `PodScore` messages
wire        fields of protobuf messages
"""

from __future__ import annotations

from service.kernel.pod_scores import PodScoreWriter, WrittenScores
from service.kernel.wire import length_delimited, varint

__all__ = ["PodScoreWriter", "WrittenScores", "length_delimited", "varint"]
