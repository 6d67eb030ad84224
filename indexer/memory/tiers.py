"""The numbers and weights of an index's tiers."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_TIER_WEIGHTS: Mapping[str, float] = {
    "gpu": 1.0,
    "cpu": 0.8,
    "shared_storage": 0.4,
    "disk": 0.3,
    "object_store": 0.2,
}
_UNKNOWN_TIER_WEIGHT = 0.0
_MAX_TIERS = 64
_OTHER_TIER = "other"
_REMEMBERED = 64  # sets of weights that requests bring


class TierRegistry:
    """Gives each tier a small number.

    Names of tiers come from engines, so there may be any number of them: those beyond the 64th
    share the number and the name of one tier, `other`.
    """

    def __init__(self, tier_weights: Mapping[str, float]) -> None:
        self.names: list[str] = []
        """Tier number -> name. It only ever grows."""
        self.weights = array("d")
        """Tier number -> what a block in it adds to a score; 0 for a tier without a weight."""
        self._numbers: dict[str, int] = {}
        self._tier_weights = tier_weights
        self._given: dict[frozenset[tuple[str, float]], array[float]] = {}
        self.load(())

    def number_of(self, name: str) -> int:
        """Return the number of a tier, a new one for a tier not seen before."""
        number = self._numbers.get(name)
        if number is None:
            if len(self.names) >= _MAX_TIERS:
                name = _OTHER_TIER
            number = self._numbers.setdefault(name, len(self.names))
            if number == len(self.names):
                self.names.append(name)
                self.weights.append(self._tier_weights.get(name, _UNKNOWN_TIER_WEIGHT))
        return number

    def weights_with(self, given: Mapping[str, float]) -> array[float]:
        """Return the weights by tier number, of which `given` replaces some.

        Equal weights are the same array, until there is a new tier.
        """
        if not given:
            return self.weights
        key = frozenset(given.items())
        weights = self._given.get(key)
        if weights is None or len(weights) < len(self.names):
            if len(self._given) >= _REMEMBERED:
                self._given.clear()
            replaced = map(given.get, self.names, self.weights)
            weights = self._given[key] = array("d", replaced)
        return weights

    def load(self, names: Iterable[str]) -> None:
        """Number the tiers anew: as they were dumped, and then those with a weight."""
        self.names.clear()
        self._numbers.clear()
        self._given.clear()
        del self.weights[:]
        for name in (*names, *self._tier_weights):
            self.number_of(name)
