"""`kvatlas serve` as a process, with a tokenizer, to which one pod has published two blocks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgpack
import zmq

from support.models.trained import write_tokenizer
from support.services.process import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POD = "10.0.0.1:8000"


@contextmanager
def service_with_blocks(folder: Path, *arguments: str) -> Iterator[ServiceProcess]:
    """The service; its model is called `m`, and its blocks have the tokens 0 to 31.

    Args:
        folder: for its files.
        arguments: of `kvatlas serve`.
    """
    write_tokenizer(folder)
    config = folder / "kvatlas.toml"
    config.write_text(f'[[models]]\nname = "m"\ntokenizer = "{folder}"\n')
    running = ServiceProcess("--config", str(config), *arguments)
    with zmq.Context() as context:
        pod = context.socket(zmq.XPUB)
        pod.connect(running.events)
        assert pod.poll(30_000)
        event = {
            "type": "BlockStored",
            "block_hashes": [1, 2],
            "parent_block_hash": None,
            "token_ids": list(range(32)),
            "block_size": 16,
            "medium": "GPU",
        }
        pod.send_multipart([f"kv@{POD}@m".encode(), bytes(8), msgpack.packb([1.0, [event], 0])])
        running.until_logged("worker_joined")
        yield running
        pod.close(linger=0)
    running.stop()
