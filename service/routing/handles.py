"""The scored prompts whose routing may be recorded, by handle: bounded in bytes and in time."""

from __future__ import annotations

import secrets
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from service.routing.errors import HandleUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from indexer import Worker

_INSTANCE_BYTES = 8
_RANDOM_BYTES = 8
_BYTES_OF_A_HANDLE = 700  # besides its keys and promises
_BYTES_OF_A_PROMISE = 17
_BYTES_OF_A_NAME = 64  # besides its characters


def instance_of(replica: str) -> bytes:
    """Return what the handles of a replica begin with, given its identity."""
    return blake2b(replica.encode(), digest_size=_INSTANCE_BYTES).digest()


class Promise(NamedTuple):
    """What an answer said of one worker."""

    reusable_tokens: int = 0
    matched_blocks: int = 0
    is_exact: bool = False
    """Whether the answer called it exact, and the reusable tokens no bound."""


@dataclass(frozen=True, slots=True)
class Promises:
    """What an answer said of each worker in it."""

    workers: Sequence[Worker]
    reusable_tokens: array[int]
    matched_blocks: array[int]
    is_exact: bytes

    def of(self, worker: Worker) -> Promise | None:
        """Return what was said of one worker; None if it was not in the answer."""
        if worker not in self.workers:
            return None
        return self._at(self.workers.index(worker))

    def best_rank(self, pod: str) -> Worker | None:
        """Return the rank of `pod` for which most was promised, the first of equals."""
        ranks = [at for at, worker in enumerate(self.workers) if worker.pod == pod]
        return self.workers[max(ranks, key=self._at)] if ranks else None

    def _at(self, index: int) -> Promise:
        return Promise(
            self.reusable_tokens[index], self.matched_blocks[index], bool(self.is_exact[index])
        )


NO_PROMISES = Promises((), array("I"), array("I"), b"")


@dataclass(frozen=True, slots=True)
class ScoredKeys:
    """A prompt that was scored, and the answer."""

    model: str
    block_size: int
    """Tokens of a block of the answer."""
    keys: Mapping[int, array[int]]
    """Tokens of a block -> the block keys of the prompt; at least for `block_size`."""
    promises: Promises
    tokens: int = 0
    """Of the prompt."""
    unknown_pods: Sequence[str] = ()
    """Pods that were asked for and are not known yet: the request may be their first."""

    @property
    def size(self) -> int:
        """About how many bytes it occupies."""
        keys = sum(8 * len(keys) for keys in self.keys.values())
        names = sum(_BYTES_OF_A_NAME + len(pod) for pod in self.unknown_pods)
        promises = _BYTES_OF_A_PROMISE * len(self.promises.workers)
        return _BYTES_OF_A_HANDLE + keys + promises + names


class Handles:
    """Gives out handles. What does not fit in memory drops the oldest ones, which are counted."""

    def __init__(self, limit_bytes: int, seconds: float, now: Callable[[], float]) -> None:
        """Args: seconds: for which a handle is valid."""
        self.instance = secrets.token_bytes(_INSTANCE_BYTES)
        """What all handles of this process begin with; set it before the first one is given."""
        self.dropped = 0
        """Handles that were dropped before their time."""
        self._limit = limit_bytes
        self._seconds = seconds
        self._now = now
        self._bytes = 0
        self._prompts: OrderedDict[bytes, tuple[float, ScoredKeys]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._prompts)

    def add(self, prompt: ScoredKeys) -> bytes:
        """Return a new handle; empty if the prompt alone is larger than all may be."""
        if prompt.size > self._limit:
            self.dropped += 1
            return b""
        self._bytes += prompt.size
        handle = self.instance + secrets.token_bytes(_RANDOM_BYTES)
        self._prompts[handle] = (self._now() + self._seconds, prompt)
        self.expire()
        while self._bytes > self._limit:
            self._pop_oldest()
            self.dropped += 1
        return handle

    def gave(self, handle: bytes) -> bool:
        """Whether this process gave the handle, even if it is unknown by now."""
        return handle.startswith(self.instance)

    def get(self, handle: bytes) -> ScoredKeys:
        """Return what the handle stands for. Raises HandleUnknownError."""
        self.expire()
        try:
            return self._prompts[handle][1]
        except KeyError:
            raise HandleUnknownError from None

    def expire(self) -> None:
        """Forget the handles whose time is over."""
        now = self._now()
        while self._prompts and next(iter(self._prompts.values()))[0] <= now:
            self._pop_oldest()

    def _pop_oldest(self) -> None:
        _, (_, prompt) = self._prompts.popitem(last=False)
        self._bytes -= prompt.size
