"""Errors name the known models and pods that were probably meant, shortly."""

from __future__ import annotations

import pytest

from service.rpc.bounds.refusal import plain, refusal_of
from service.rpc.errors import (
    InvalidRequestError,
    UnknownModelError,
    UnknownPodError,
)
from service.rpc.near_names import near_names

MODELS = [f"org-{number % 50}/model-{number:05}" for number in range(5000)]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("org-7/model-00107x", "org-7/model-00107"),
        ("rg-7/model-00107", "org-7/model-00107"),
        ("Xorg-49/model-04999", "org-49/model-04999"),
    ],
)
def test_a_misspelled_name_is_recognized_among_thousands(name: str, meant: str) -> None:
    assert meant in near_names(name, MODELS)


def test_a_name_like_no_other_has_no_near_names() -> None:
    assert near_names("§§§§", MODELS) == []
    assert near_names("", []) == []


def test_few_known_models_are_all_listed() -> None:
    assert "known models: a, b" in str(UnknownModelError("x", ["b", "a"]))
    assert "no pod has published" in str(UnknownModelError("x", []))


def test_of_many_known_models_the_nearest_are_named() -> None:
    text = str(UnknownModelError("org-7/model-00107x", MODELS))
    assert "5000 models are known; did you mean 'org-7/model-00107'" in text
    assert len(text) < 400


def test_an_unknown_pod_is_compared_with_the_known_ones() -> None:
    text = str(UnknownPodError("10.0.0.1:800", ["10.0.0.1:8000", "10.0.0.2:8000"]))
    assert "did you mean '10.0.0.1:8000'" in text
    assert "did you mean" not in str(UnknownPodError("x", []))


@pytest.mark.parametrize(
    "name", ["m" * 20_000, "\x1b[2J\n\x00" * 5000, "é" * 20_000, "\U0001f600" * 300]
)
def test_a_caller_is_told_at_most_a_kilobyte_without_control_characters(name: str) -> None:
    for error in (
        UnknownModelError(name, MODELS),
        UnknownModelError("x", [name] * 8),
        UnknownPodError(name, [name]),
        InvalidRequestError(name),
    ):
        refusal = refusal_of(error, "Method")
        assert refusal.text.isprintable()
        assert len(refusal.text.encode()) <= 1024
        ((key, value),) = refusal.metadata
        assert key == "grpc-status-details-bin"
        assert len(value) < 2048


def test_a_text_that_is_cut_ends_in_dots() -> None:
    assert plain("x" * 1024) == "x" * 1024
    assert plain("x" * 1025) == "x" * 1021 + "..."
