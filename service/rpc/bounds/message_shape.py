"""The shape of a large message: how many fields it has, counted before it is decoded.

A decoder makes an object of every field, at a few bytes of message each. Of a large message the
repeated fields are therefore counted first, on the wire format and only where the message types
have counted fields below them; token ids and texts are skipped as a whole.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from service.rpc.bounds.json_text import check_values, count_values
from service.rpc.errors import TooLargeError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from service.config import LimitsSection
    from service.rpc.bounds.turns import LongWork

# Repeated field -> the setting that bounds it in each message.
_COUNTED = {
    "kvatlas.v1.ScoreManyRequest.requests": "prompts",
    "kvatlas.v1.ScoreRequest.pods": "pods",
    "kvatlas.v1.Prompt.multimodal_items": "multimodal_items",
}
_PACKAGE_COUNTED = "tokenization."  # all repeated messages of llm-d's service, as values
# Texts that are read as JSON, which takes milliseconds: a long one waits for its turn.
_JSON = {"chat_completion", "completion", "messages", "tools_json", "tool_calls_json"}
_LONG_JSON = 65_536  # bytes
_MOST_FIELDS = 131_072  # of a message, counted or not; their decoding takes some milliseconds
_FEW_FIELDS = 64  # of a single prompt, say: such a message, however long, waits for no turn
_FIELDS_A_PAUSE = 1024
_MAX_DEPTH = 100  # as of protobuf's decoders


class _Counted(NamedTuple):
    """A field that is counted, or has counted fields below it."""

    name: str
    setting: str
    """Empty: not counted itself."""
    below: Descriptor | None
    """The type of its messages, if there is something to count in them."""
    is_json: bool


class _Malformed(Exception):  # noqa: N818 - decoding will say so
    """The bytes are not in wire format."""


class MessageShape:
    """Counts the fields of one message."""

    def __init__(self, limits: LimitsSection, work: LongWork) -> None:
        self._limits = limits
        self._work = work
        self.fields = 0
        self._next_pause = _FEW_FIELDS

    async def check(self, raw: bytes, descriptor: Descriptor) -> None:
        """Count the fields of a message of the given type.

        Raises:
            TooLargeError: there are more than a limit allows. Malformed bytes are no error here.
            DeadlineOverError: the caller's deadline is over.
        """
        try:
            await self._message(raw, 0, len(raw), descriptor, 0)
        except (_Malformed, IndexError):
            return

    async def _message(
        self, raw: bytes, at: int, end: int, descriptor: Descriptor, depth: int
    ) -> None:
        fields = _counted_fields(descriptor)
        counts = dict.fromkeys(fields, 0)
        while at < end:
            self.fields += 1
            if self.fields >= self._next_pause:
                await self._pause()
            tag, at = _varint(raw, at)
            number, wire_type = tag >> 3, tag & 7
            start, at = _skipped(raw, at, wire_type)
            counted = fields.get(number)
            if counted is None or wire_type != 2:
                continue
            counts[number] += 1
            if counted.is_json and at - start > _LONG_JSON:
                await self._work.first_slice()
                if not descriptor.full_name.startswith(_PACKAGE_COUNTED):
                    await self._check_values(counted.name, raw, start, at)
            if counted.setting:
                self._check_count(counted, counts[number])
            if counted.below is not None and depth < _MAX_DEPTH and at <= end:
                await self._message(raw, start, at, counted.below, depth + 1)

    async def _check_values(self, name: str, raw: bytes, start: int, end: int) -> None:
        """Refuse a JSON text of too many values: to decode the message copies the text twice."""
        limit = self._limits.json_values
        counting = count_values(raw, start, min(end, len(raw)), limit)
        try:
            while True:
                next(counting)
                await self._work.pause()
        except StopIteration as ended:
            check_values(name, ended.value, limit)

    async def _pause(self) -> None:
        if self.fields > _MOST_FIELDS:
            raise TooLargeError(f"the request has more than {_MOST_FIELDS} fields", "")
        if self._next_pause == _FEW_FIELDS:
            await self._work.first_slice()
        else:
            await self._work.pause()
        self._next_pause = self.fields + _FIELDS_A_PAUSE

    def _check_count(self, field: _Counted, count: int) -> None:
        limit = getattr(self._limits, field.setting)
        if count > limit:
            raise TooLargeError(f"{field.name} is longer than the limit of {limit}", field.setting)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it."""
    byte = raw[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    for place in range(at + 1, at + 10):
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise _Malformed


def _skipped(raw: bytes, at: int, wire_type: int) -> tuple[int, int]:
    """Return where the value at a place begins, and the place after it."""
    match wire_type:
        case 2:
            length, at = _varint(raw, at)
            return at, at + length
        case 0:
            return at, _varint(raw, at)[1]
        case 1:
            return at, at + 8
        case 5:
            return at, at + 4
        case 3 | 4:
            return at, at  # groups: their fields follow
    raise _Malformed


@cache
def _counted_fields(descriptor: Descriptor) -> dict[int, _Counted]:
    """Return what is to be counted in messages of a type, by the number of the field."""
    found = {}
    for field in descriptor.fields:
        setting = _setting_of(field)
        below = field.message_type
        if below is not None and not _anything_below(below):
            below = None
        is_json = field.message_type is None and field.name in _JSON
        if setting or below is not None or is_json:
            found[field.number] = _Counted(field.name, setting, below, is_json)
    return found


def _setting_of(field: FieldDescriptor) -> str:
    if field.full_name.startswith(_PACKAGE_COUNTED) and field.is_repeated:
        return "json_values" if field.message_type is not None else ""
    return _COUNTED.get(field.full_name, "")


def _anything_below(descriptor: Descriptor, above: frozenset[str] = frozenset()) -> bool:
    if descriptor.full_name in above:
        return False
    above |= {descriptor.full_name}
    return any(
        _setting_of(field)
        or field.name in _JSON
        or (field.message_type is not None and _anything_below(field.message_type, above))
        for field in descriptor.fields
    )
