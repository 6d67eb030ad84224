"""The names by which engines serve their models: adapters, and further names of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.discovery.states import PodState

_MOST_NAMES = 10_000


def served_names(states: Iterable[PodState]) -> dict[str, tuple[str, str]]:
    """What the names stand for, besides each model's own: the model, and the adapter or "".

    A name that stands for different things on different pods is left out.
    """
    names: dict[str, tuple[str, str]] = {}
    ambiguous: set[str] = set()
    for state in states:
        facts = state.facts
        if facts is None:
            continue
        model = state.pod.model or facts.models[0]
        others = [(name, (model, "")) for name in facts.models if name != model]
        others += [(name, (model, name)) for name in facts.adapters]
        for name, meaning in others:
            if names.setdefault(name, meaning) != meaning:
                ambiguous.add(name)
        if len(names) > _MOST_NAMES:
            break
    return {name: meaning for name, meaning in names.items() if name not in ambiguous}
