"""What the names that callers give models stand for: engines serve them under others, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class ModelNames:
    """The names of models.

    Args:
        served: other names by which engines serve a model, and its adapters -> model and adapter
            or ""; it may change.
        is_model: whether a name is a model's own, whatever engines say.
    """

    def __init__(
        self, served: Mapping[str, tuple[str, str]], is_model: Callable[[str], bool]
    ) -> None:
        self._served = served
        self._is_model = is_model

    def meaning(self, name: str) -> tuple[str, str] | None:
        """Return the model and the adapter or "" that a name stands for; None: it is a model."""
        meaning = self._served.get(name)
        return None if meaning is None or self._is_model(name) else meaning

    def model(self, name: str) -> str:
        """Return the model that a name stands for, if only by one of its adapters."""
        meaning = self.meaning(name)
        return name if meaning is None else meaning[0]
