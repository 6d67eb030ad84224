"""Metrics as the command line reads them: rates, and quantiles of histograms."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil, inf
from threading import Thread

import pytest
from support.ports import free_port

from service.cli.calling.measures import Histogram, MeasuresError, process_measures, read_measures

BOUNDS = [0.001, 0.01, 0.1, 1.0, inf]


def histogram(values: list[float]) -> Histogram:
    return Histogram(Counter({bound: sum(v <= bound for v in values) for bound in BOUNDS}))


def test_a_quantile_lies_in_the_bucket_of_the_value_it_stands_for() -> None:
    source = random.Random(3)
    for _ in range(200):
        values = [source.choice([0.0005, 0.004, 0.05, 0.5]) for _ in range(source.randrange(1, 50))]
        share = source.choice([0.5, 0.9, 0.99])
        exact = sorted(values)[ceil(share * len(values)) - 1]
        found = histogram(values).quantile(share)
        assert found is not None
        upper = min(bound for bound in BOUNDS if bound >= exact)
        lower = max((bound for bound in BOUNDS if bound < exact), default=0.0)
        assert lower <= found <= upper


def test_a_quantile_of_nothing_or_beyond_the_last_bound_is_unknown() -> None:
    assert histogram([]).quantile(0.5) is None
    assert histogram([5.0, 6.0]).quantile(0.5) is None


def test_what_was_measured_earlier_does_not_count() -> None:
    earlier = [0.0005] * 100
    now = histogram([*earlier, 0.5, 0.6])
    recent = now.since(histogram(earlier))
    assert recent.total == 2
    median = recent.quantile(0.5)
    assert median is not None
    assert 0.1 < median <= 1.0


def page(processes: int | str, frames: int, counts: list[int]) -> bytes:
    """What one process exports."""
    buckets = "".join(
        f'grpc_server_handling_seconds_bucket{{grpc_method="Score",le="{bound}"}} {count}\n'
        for bound, count in zip(("0.001", "0.01", "+Inf"), counts, strict=True)
    )
    histogram = "# TYPE grpc_server_handling_seconds histogram\n" + buckets
    gauge = f"# TYPE kvatlas_processes gauge\nkvatlas_processes {processes}\n"
    counter = f"# TYPE kvatlas_frames_total counter\nkvatlas_frames_total {frames}\n"
    return (gauge + counter + histogram).encode()


@contextmanager
def pages(*served: bytes) -> Iterator[str]:
    """Serves each page at the next port; yields the first address."""
    with ExitStack() as stack:
        while True:
            first = free_port()
            try:
                for number, content in enumerate(served):
                    stack.enter_context(served_page(first + number, content))
            except OSError:  # the next port is taken
                stack.close()
                continue
            yield f"127.0.0.1:{first}"
            return


@contextmanager
def served_page(port: int, content: bytes) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()


def test_processes_that_serve_as_one_are_measured_together() -> None:
    with pages(page(2, 30, [0, 2, 3]), page(2, 12, [1, 1, 4])) as address:
        both = read_measures(address, 10.0)
        first = process_measures(address, 10.0)
    assert (first.frames, first.scores.total) == (30, 3)
    assert (both.frames, both.scores.total) == (42, 7)
    assert both.scores.counts == {0.001: 1, 0.01: 3, inf: 7}
    # Else a part would pass for all.
    with pages(page(2, 30, [0, 2, 3])) as address, pytest.raises(MeasuresError, match="process 1"):
        read_measures(address, 10.0)


@pytest.mark.parametrize("processes", ["inf", "-inf", "nan", "1e300", "-1", "65536"])
def test_a_stranger_s_number_of_processes_ends_in_an_error_or_is_bounded(processes: str) -> None:
    with pages(page(processes, 30, [0, 2, 3])) as address, suppress(MeasuresError):
        assert 1 <= process_measures(address, 10.0).processes <= 64
        assert read_measures(address, 10.0).processes == 1


def test_where_no_metrics_are_served_that_is_an_error() -> None:
    with pytest.raises(MeasuresError, match="no metrics from 127"):
        read_measures(f"127.0.0.1:{free_port()}", 1.0)
    with pytest.raises(MeasuresError, match="no metrics from"):
        read_measures("no port", 1.0)
