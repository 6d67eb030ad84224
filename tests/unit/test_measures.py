"""Metrics as the command line reads them: rates, and quantiles of histograms."""

from __future__ import annotations

import random
from collections import Counter
from math import ceil, inf

import pytest
from support.ports import free_port

from service.cli.calling.measures import Histogram, MeasuresError, read_measures

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


def test_where_no_metrics_are_served_that_is_an_error() -> None:
    with pytest.raises(MeasuresError, match="no metrics from 127"):
        read_measures(f"127.0.0.1:{free_port()}", 1.0)
    with pytest.raises(MeasuresError, match="no metrics from"):
        read_measures("no port", 1.0)
