"""What can happen to the trust in a worker; only its stream applies it, by `Trust.follow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kvevents.wire import ALL_TIER_CLASSES, TierClass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from indexer import TrustState


class StartedEmpty(NamedTuple):
    """Every frame since the engine's start will be applied, and nothing is claimed yet."""


class HeardFromStart(NamedTuple):
    """The present engine is heard from its first frame on; what is claimed of it may be older."""


class NeverHeard(NamedTuple):
    """Nothing of the present engine was ever heard."""


class JoinedLate(NamedTuple):
    """The engine published frames before the first one that is known."""

    reason: str
    recoverable: bool
    """Whether applying everything again could help."""


class Restarted(NamedTuple):
    """Another engine has taken the worker's place: GPU and host memory are empty."""


class Downgrade(NamedTuple):
    """Something was lost or not understood: some tiers are partial or degraded from now on."""

    state: TrustState
    reason: str
    classes: Iterable[TierClass] = ALL_TIER_CLASSES
    recoverable: bool = True


class BeginRecovery(NamedTuple):
    """Something is missing, and a replay that may bring it is under way."""

    reason: str


class EndRecovery(NamedTuple):
    """No replay is awaited any more."""


class GpuCleared(NamedTuple):
    """The engine has dropped all blocks in its GPU's memory."""


class OrphansChanged(NamedTuple):
    """Blocks have begun, or have ceased, to wait for their parents."""

    waiting: bool


class ExtrasNotSent(NamedTuple):
    """The engine's wire format has no salts and images: blocks may be taken for others."""


TrustChange: TypeAlias = (
    StartedEmpty
    | HeardFromStart
    | NeverHeard
    | JoinedLate
    | Restarted
    | Downgrade
    | BeginRecovery
    | EndRecovery
    | GpuCleared
    | OrphansChanged
    | ExtrasNotSent
)
