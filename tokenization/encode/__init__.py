"""TODO map."""

from __future__ import annotations

from tokenization.encode.encoders import Encoder, HuggingFace, Ids, select_encoder
from tokenization.encode.segment_cache import SegmentCache
from tokenization.encode.split_points import SplitPoints, find_split_points
from tokenization.encode.truncation import truncation_of

__all__ = [
    "Encoder",
    "HuggingFace",
    "Ids",
    "SegmentCache",
    "SplitPoints",
    "find_split_points",
    "select_encoder",
    "truncation_of",
]
