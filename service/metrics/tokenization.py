"""Prometheus metrics of tokenization, collected at each scrape."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector
from typing_extensions import override

from tokenization import WAITED_BOUNDS, Drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from tokenization import Tokenizers


class TokenizationCollector(Collector):
    """How much is tokenized and how fast, what the caches save, and what is refused."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._tokenizers = tokenizers

    @override
    def collect(self) -> Iterator[Metric]:
        counts, queue = self._tokenizers.counts, self._tokenizers.queue
        yield CounterMetricFamily("kvatlas_tokenizations", "Prompts tokenized.", counts.done)
        yield CounterMetricFamily(
            "kvatlas_tokenization_seconds",
            "Time that threads spent tokenizing.",
            queue.counts.seconds,
        )
        yield CounterMetricFamily(
            "kvatlas_tokenizations_failed", "Prompts that could not be tokenized.", counts.failed
        )
        yield CounterMetricFamily(
            "kvatlas_tokenizers_evicted", "Models dropped to free memory.", counts.evicted
        )
        yield GaugeMetricFamily(
            "kvatlas_tokenizations_under_way",
            "Prompts being tokenized or waiting for a thread.",
            len(queue.running) + len(queue.pending),
        )
        yield from self._queue()
        yield from self._models()

    def _queue(self) -> Iterator[Metric]:
        queue, counts = self._tokenizers.queue, self._tokenizers.queue.counts
        yield GaugeMetricFamily(
            "kvatlas_tokenization_queue_texts", "Texts waiting for a thread.", len(queue.pending)
        )
        yield GaugeMetricFamily(
            "kvatlas_tokenization_queue_bytes", "Size of these texts.", queue.pending_bytes
        )
        bounds = [*map(str, WAITED_BOUNDS), "+Inf"]
        yield HistogramMetricFamily(
            "kvatlas_tokenization_wait_seconds",
            "Time that texts waited for a thread.",
            buckets=list(zip(bounds, accumulate(counts.waited), strict=True)),
            sum_value=counts.waited_seconds,
        )
        dropped = CounterMetricFamily(
            "kvatlas_tokenizations_dropped",
            "Texts that no thread began with: refused because the queue was full (queue_full, "
            "queue_bytes) or too long for their deadline (too_late), or given up while they "
            "waited because the deadline passed (expired) or the caller went (cancelled).",
            labels=["reason"],
        )
        for reason in Drop:
            dropped.add_metric([reason], counts.dropped[reason])
        yield dropped
        killed = CounterMetricFamily(
            "kvatlas_render_processes_killed",
            "Processes that rendered a request's own template and took too long (seconds), needed "
            "too much (memory), or ended by themselves (died).",
            labels=["reason"],
        )
        for why, count in self._tokenizers.processes.killed.items():
            killed.add_metric([why], count)
        yield killed

    def _models(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "kvatlas_tokenizer_loaded",
            "1 for each loaded tokenizer; its library (by) and whether it has a segment cache.",
            labels=["model", "by", "cached"],
        )
        segments = CounterMetricFamily(
            "kvatlas_tokenization_segments",
            "Segments of texts, by whether the segment cache had them (found) or not (encoded).",
            labels=["model", "outcome"],
        )
        characters = CounterMetricFamily(
            "kvatlas_tokenization_characters",
            "Characters of those segments.",
            labels=["model", "outcome"],
        )
        used = GaugeMetricFamily(
            "kvatlas_tokenization_cache_bytes",
            "Bytes of the segment cache in use.",
            labels=["model"],
        )
        for model in self._tokenizers.models():
            counts, name = model.segments.counts, model.name
            cached = "yes" if model.segments.split_points else "no"
            loaded.add_metric([name, model.encoder, cached], 1)
            segments.add_metric([name, "found"], counts.found)
            segments.add_metric([name, "encoded"], counts.encoded)
            characters.add_metric([name, "found"], counts.characters_found)
            characters.add_metric([name, "encoded"], counts.characters_encoded)
            used.add_metric([name], model.segments.used)
        yield from (loaded, segments, characters, used)
