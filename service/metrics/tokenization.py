"""Prometheus metrics of tokenization, read at each scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

    from tokenization import Tokenizers


class TokenizationCollector(Collector):
    """How much is tokenized, how long it takes, what the caches save and what is refused."""

    def __init__(self, tokenizers: Tokenizers) -> None:
        self._tokenizers = tokenizers

    def collect(self) -> Iterator[Metric]:
        """All families."""
        counts = self._tokenizers.counts
        yield CounterMetricFamily("kvatlas_tokenizations", "Prompts tokenized.", counts.done)
        yield CounterMetricFamily(
            "kvatlas_tokenization_seconds", "Time threads spent on them.", counts.seconds
        )
        yield CounterMetricFamily(
            "kvatlas_tokenizations_failed", "Prompts that could not be tokenized.", counts.failed
        )
        yield CounterMetricFamily(
            "kvatlas_tokenizations_refused",
            "Prompts refused because too many waited, or too long.",
            counts.refused,
        )
        yield CounterMetricFamily(
            "kvatlas_tokenizers_evicted", "Models dropped for their memory.", counts.evicted
        )
        yield GaugeMetricFamily(
            "kvatlas_tokenizations_under_way",
            "Prompts being tokenized, or waiting for it.",
            self._tokenizers.under_way,
        )
        yield from self._of_models()

    def _of_models(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "kvatlas_tokenizer_loaded",
            "1 for each tokenizer: by which library, whether the cache of segments is on.",
            labels=["model", "by", "cached"],
        )
        segments = CounterMetricFamily(
            "kvatlas_tokenization_segments",
            "Segments of texts found in the cache, or encoded because they were not.",
            labels=["model", "outcome"],
        )
        characters = CounterMetricFamily(
            "kvatlas_tokenization_characters",
            "The same, in characters.",
            labels=["model", "outcome"],
        )
        used = GaugeMetricFamily(
            "kvatlas_tokenization_cache_bytes", "Bytes of the cache in use.", labels=["model"]
        )
        for model in self._tokenizers.models():
            counts, name = model.segments.counts, model.name
            cached = "yes" if model.segments.cuts else "no"
            loaded.add_metric([name, model.encoder, cached], 1)
            segments.add_metric([name, "found"], counts.found)
            segments.add_metric([name, "encoded"], counts.encoded)
            characters.add_metric([name, "found"], counts.characters_found)
            characters.add_metric([name, "encoded"], counts.characters_encoded)
            used.add_metric([name], model.segments.used)
        yield from (loaded, segments, characters, used)
