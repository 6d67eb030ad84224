"""Which names of models and adapters callers can use, where pods disagree or tell too many."""

from __future__ import annotations

from service.discovery import DiscoveredPod, PodState
from service.discovery.served_names import _MOST_NAMES, served_names
from service.engines import EngineFacts


def state(*models: str, adapters: tuple[str, ...] = (), told: str = "") -> PodState:
    facts = EngineFacts("vllm", "0.32.0", models, adapters)
    return PodState(DiscoveredPod("http://h:1", model=told), ("static",), facts)


def test_a_name_stands_for_its_model_and_adapter() -> None:
    found = served_names([state("m", "short", adapters=("sql",)), state("m", adapters=("sql",))])
    assert found == ({"short": ("m", ""), "sql": ("m", "sql")}, 0)
    assert served_names([state("m", told="named")]) == ({"m": ("named", "")}, 0)


def test_a_name_that_pods_disagree_about_is_left_out_and_counted() -> None:
    states = [state("m", adapters=("sql", "a")), state("n", adapters=("sql", "b"))]
    assert served_names(states) == ({"a": ("m", "a"), "b": ("n", "b")}, 1)


def test_names_beyond_the_bound_are_counted() -> None:
    names = [f"adapter-{number}" for number in range(_MOST_NAMES + 7)]
    found = served_names(state("m", adapters=(name,)) for name in names)
    assert (len(found.meanings), found.left_out) == (_MOST_NAMES, 7)
