"""What one caller may take: bounds of a request, of its work, its answer, and the error's text.

call_admission   how many calls are under way, and the bytes of their requests
call_bounds      the bounds of every call, together
items            the multimodal items of a prompt
json_text        JSON texts, with a limited number of values
message_shape    how many fields a large message has, before it is decoded
names            the length of a name
refusal          what a caller is told of an error
turns            long work in slices, with other calls in between
"""

from __future__ import annotations

from service.rpc.bounds.call_admission import LARGE_BYTES
from service.rpc.bounds.call_bounds import CallBounds
from service.rpc.bounds.refusal import Refusal
from service.rpc.bounds.turns import LongWork

__all__ = ["LARGE_BYTES", "CallBounds", "LongWork", "Refusal"]
