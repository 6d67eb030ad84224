"""`make bench`: every figure beside what it is measured against, both taken in this run."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable

from benchmarks import (
    kernel,
    peer,
    peer_scores,
    processes,
    service,
    sizing,
    stores,
    streams,
    tokens,
    tracing,
)
from benchmarks.rows import header

from indexer import COMPILED


def main() -> None:
    """Run all, or what --only names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="a word: keys, lookup, memory, events, rpc, ...")
    parser.add_argument(
        "--most-blocks", type=int, default=10_000_000, help="end of the scale curve"
    )
    parser.add_argument("--peer", default="", help="a Python with the peer, see benchmarks/peer.py")
    options = parser.parse_args()
    others = 2_000_000 if COMPILED else 20_000
    parts: dict[str, Callable[[], None]] = {
        "keys": kernel.keys_row,
        "lookup": lambda: kernel.lookup_rows(others),
        "hybrid": kernel.hybrid_rows,
        "process": kernel.in_process_row,
        "clear": kernel.clear_row,
        "memory": kernel.memory_rows,
        "events": service.event_rows,
        "groups": peer.group_rows,
        "peer: ingest": lambda: peer.peer_rows(options.peer),
        "peer: scores": lambda: peer_scores.peer_score_rows(options.peer),
        "rpc": service.rpc_rows,
        "stream": streams.stream_rows,
        "many": streams.many_row,
        "beside": streams.beside_many_row,
        "holders": streams.holders_row,
        "traces": tracing.trace_rows,
        "storm": service.storm_row,
        "store": stores.store_rows,
        "tokens": tokens.token_rows,
        "sizing": sizing.sizing_rows,
        "several": processes.process_rows,
        "scale": lambda: kernel.scale_rows(options.most_blocks),
    }
    print(
        f"kernel {'compiled' if COMPILED else 'uncompiled'}, {platform.python_implementation()} "
        f"{platform.python_version()} on {platform.machine()}"
    )
    header()
    for name, run in parts.items():
        if options.only in name:
            run()


if __name__ == "__main__":
    main()
