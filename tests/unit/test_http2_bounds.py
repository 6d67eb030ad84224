"""What headers may take of memory, and of a step of the event loop."""

from __future__ import annotations

import tracemalloc

from service.listening.http2.wire import frames
from service.listening.http2.wire.frame_reader import FrameReader
from service.listening.http2.wire.header_blocks import HeaderDecoder


def test_short_blocks_of_many_headers_are_not_kept() -> None:
    decoder = HeaderDecoder()
    tracemalloc.start()
    try:
        for more in range(32):
            assert len(decoder.decode(b"\x82" * (470 + more))) == 470 + more
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 128 * 1024


class Handler:
    """Counts header blocks."""

    def __init__(self) -> None:
        self.blocks = 0

    def on_preface(self) -> None:
        pass

    def on_fragment(self) -> None:
        pass

    def on_header_block(self, number: int, block: bytes, *, ends: bool) -> None:
        self.blocks += 1

    def on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        pass


def test_a_step_reads_fewer_header_blocks_if_they_are_long() -> None:
    handler = Handler()
    reader = FrameReader(handler)
    block = frames.frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x82" * 500)
    reader.add(frames.PREFACE + frames.settings_frame({}) + block * 100)
    steps = 0
    while reader.next_cost():
        reader.read(256, lambda: False)
        steps += 1
    assert handler.blocks == 100
    assert steps >= 10


def test_a_header_block_costs_the_same_in_one_frame_or_many() -> None:
    reader = FrameReader(Handler())
    block = b"\x82" * 4000
    reader.add(frames.PREFACE + frames.settings_frame({}))
    reader.read(256, lambda: False)
    reader.add(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, block))
    whole = reader.next_cost()
    assert whole > 200
    assert reader.read(1, lambda: False) == whole
    reader.add(frames.frame(frames.HEADERS, 0, 3, block[:2000]))
    reader.add(frames.frame(frames.CONTINUATION, 0, 3, block[2000:3990]))
    reader.add(frames.frame(frames.CONTINUATION, frames.END_HEADERS, 3, block[3990:]))
    assert reader.read(16, lambda: False) == 2
    assert reader.next_cost() == whole
