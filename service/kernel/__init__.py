"""The part of the service whose speed matters, compiled by Cython where there is a C compiler.

pod_scores   the matches of a prompt -> an answer
answer       which ranks are in one answer, and their encoded `PodScore` messages
score_forms  what an answer is to have, and what it has
pod_fields   fields of a `PodScore`, encoded
wire         fields of protobuf messages
"""

from __future__ import annotations

import indexer  # noqa: F401 - so that `import cython` works without Cython
from service.kernel.pod_scores import PodScoreWriter
from service.kernel.score_forms import AnsweredWorkers, ScoresForm, WrittenScores
from service.kernel.wire import length_delimited, varint

__all__ = [
    "AnsweredWorkers",
    "PodScoreWriter",
    "ScoresForm",
    "WrittenScores",
    "length_delimited",
    "varint",
]
