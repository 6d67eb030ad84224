"""The names by which engines serve their models: adapters, and further names of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.discovery.states import PodState

_MOST_NAMES = 10_000


class ServedNames(NamedTuple):
    """What names stand for, besides each model's own."""

    meanings: dict[str, tuple[str, str]]
    """Name -> the model, and the adapter or ""."""
    left_out: int
    """Names that stand for different things on different pods, or are too many."""


def served_names(states: Iterable[PodState]) -> ServedNames:
    """The names by which the engines of some pods serve their models."""
    names: dict[str, tuple[str, str]] = {}
    ambiguous: set[str] = set()
    beyond = 0
    for state in states:
        facts = state.facts
        if facts is None:
            continue
        model = state.pod.model or facts.models[0]
        others = [(name, (model, "")) for name in facts.models if name != model]
        others += [(name, (model, name)) for name in facts.adapters]
        for name, meaning in others:
            if name not in names and len(names) >= _MOST_NAMES:
                beyond += 1
            elif names.setdefault(name, meaning) != meaning:
                ambiguous.add(name)
    meanings = {name: meaning for name, meaning in names.items() if name not in ambiguous}
    return ServedNames(meanings, len(ambiguous) + beyond)
