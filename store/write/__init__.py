"""This replica's workers, on their way into the store.

Only the owner of a worker writes it; see `writer` about fencing and generations.

    batch_maker      what has changed of workers -> batches
    bit_allocator    a bit for every holder that counts in scores
    owned_worker     what the store has of one worker
    stale_rows       what a write has to clear where it takes the place of a released holder's rows
    streams          what the writer asks about event streams
    write_batch      the calls of one write of one worker
    writer           the rounds that write everything that has changed
"""

from __future__ import annotations

from store.write.owned_worker import OwnedWorker
from store.write.streams import Streams
from store.write.writer import Writer

__all__ = ["OwnedWorker", "Streams", "Writer"]
