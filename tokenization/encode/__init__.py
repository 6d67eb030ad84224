"""A text -> token ids, with the tokenizer's own special tokens left out.

In path order:

    segment_cache    encodes the segments of a text, or takes their ids from a cache
    split_points     where a text may be split so that its segments have the ids of the whole
    encoders         the libraries that encode, and which of them to use for a model
    truncation       cuts a prompt's tokens as its request asks
"""

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
