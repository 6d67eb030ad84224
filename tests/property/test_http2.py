"""HTTP/2 and gRPC's framing, however the octets are cut: compared with what is simple."""

from __future__ import annotations

import asyncio
import itertools
import struct
import urllib.parse
import zlib

import hpack
from hypothesis import given
from hypothesis import strategies as st

from service.listening.http2.wire.frame_reader import FrameReader
from service.listening.http2.wire.frames import PREFACE, frame
from service.listening.http2.wire.header_blocks import HeaderDecoder, encode
from service.listening.native.headers import headers_of, message_of, metadata_of, timeout_of
from service.listening.native.messages import MessageReader

NAMES = st.sampled_from([":path", ":method", "a", "b-bin", "grpc-timeout", "x" * 200])
VALUES = st.sampled_from(["", "POST", "1", "2", "v" * 100, "w" * 1500, "ü"])
HEADERS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=6)
CUTS = st.lists(st.integers(0, 3000), max_size=6)


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    """The octets, cut at these places."""
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in itertools.pairwise(places)]


@given(
    st.lists(
        st.tuples(HEADERS, st.booleans(), st.sampled_from([None, None, None, 0, 60, 4096])),
        min_size=1,
        max_size=30,
    )
)
def test_blocks_mean_the_same_with_the_cache_as_without(
    blocks: list[tuple[list[tuple[str, str]], bool, int | None]],
) -> None:
    encoder, plain, cached = hpack.Encoder(), hpack.Decoder(), HeaderDecoder()
    for headers, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(headers, huffman=huffman)
        expected = [tuple(pair) for pair in plain.decode(block, raw=True)]
        assert cached.decode(block) == expected


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=20), st.binary(max_size=40_000))))
def test_a_block_is_read_as_it_was_written(headers: list[tuple[bytes, bytes]]) -> None:
    decoder = hpack.Decoder(max_header_list_size=10**9)
    read = decoder.decode(encode(headers, begins=True), raw=True)
    assert [tuple(pair) for pair in read] == [(b":status", b"200"), *headers]


class Heard:
    """What a frame reader says."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def on_preface(self) -> None:
        self.said.append(("preface",))

    def on_header_block(self, number: int, block: bytes, *, ends: bool) -> None:
        self.said.append((1, number, block, ends))

    def on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        self.said.append((kind, flags, number, payload))

    def on_fragment(self) -> None:
        pass


@given(st.lists(st.binary(max_size=500), max_size=8), CUTS, st.integers(1, 3))
def test_frames_are_read_however_they_are_cut(
    payloads: list[bytes], cuts: list[int], most: int
) -> None:
    octets = PREFACE + frame(4, 0, 0)
    expected: list[tuple[object, ...]] = [("preface",), (4, 0, 0, b"")]
    for number, payload in enumerate(payloads, 1):
        start, rest = payload[:100], payload[100:]
        octets += frame(0, 0, number, payload) + frame(1, 1, number, start)
        octets += frame(9, 4, number, rest)
        expected += [(0, 0, number, payload), (1, number, payload, True)]
    heard = Heard()
    reader = FrameReader(heard)
    for piece in pieces(octets, cuts):
        reader.add(piece)
        while reader.next_cost():
            assert reader.read(most, lambda: False)
    assert heard.said == expected


@given(
    st.lists(st.tuples(st.binary(max_size=800), st.booleans()), max_size=6),
    CUTS,
    st.booleans(),
)
def test_messages_are_read_however_they_are_cut(
    messages: list[tuple[bytes, bool]], cuts: list[int], in_one: bool
) -> None:
    octets = b""
    for content, compressed in messages:
        sent = zlib.compress(content) if compressed else content
        octets += struct.pack(">BI", compressed, len(sent)) + sent
    chunks = iter([octets] if in_one else pieces(octets, cuts))

    async def next_chunk() -> bytes | None:
        return next(chunks, None)

    async def read() -> list[bytes]:
        reader = MessageReader(next_chunk, 1000, b"deflate")
        found = []
        while (content := await reader.next()) is not None:
            found.append(content)
        return found

    assert asyncio.run(read()) == [content for content, _ in messages]


@given(st.text())
def test_a_text_is_printable_and_percent_encoded(text: str) -> None:
    encoded = message_of(text)
    assert all(0x20 <= octet <= 0x7E for octet in encoded)
    sent = text.encode(errors="replace").decode()
    assert urllib.parse.unquote(encoded.decode()) == sent


@given(st.dictionaries(st.from_regex(r"[a-fh-z][a-z0-9_.]{0,9}-bin", fullmatch=True), st.binary()))
def test_binary_metadata_arrives_as_it_was_sent(metadata: dict[str, bytes]) -> None:
    assert dict(metadata_of(headers_of(metadata.items()))) == metadata


def test_timeouts_have_a_unit_and_at_most_eight_digits() -> None:
    seconds = {
        b"1H": 3600,
        b"2M": 120,
        b"3S": 3,
        b"4m": 0.004,
        b"5u": 5e-6,
        b"99999999n": 0.099999999,
    }
    for value, expected in seconds.items():
        assert abs((timeout_of(value) or 0) - expected) < 1e-12
    for malformed in (b"", b"1", b"S", b"-1S", b"1s", b"123456789S", b"1.5S", b" 1S"):
        assert timeout_of(malformed) is None
