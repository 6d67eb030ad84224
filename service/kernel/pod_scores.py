# cython: boundscheck=False, wraparound=False, initializedcheck=False, warn.unreachable=False
"""The matches of a prompt -> the encoded `PodScore` messages of an answer.

A Python object for every pod of every answer costs more than all that leads to it. What is written
here is what the generated classes write, field by field in the order of their numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cython

from indexer import MemoryPrefixMatch
from service.kernel.answer import Answer
from service.kernel.pod_fields import text_field
from service.kernel.wire import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from indexer import PrefixMatch, TrustState, TrustStatus, Worker
    from service.kernel.score_forms import ScoresForm, WrittenScores

_MOST_KNOWN = 16_384  # workers


@cython.cclass
class PodScoreWriter:
    """Writes the pods of answers, and remembers how their names and their trust are encoded."""

    def __init__(self, trust_states: Mapping[TrustState, int]) -> None:
        """Args: trust_states: the numbers of the enumeration in trust.proto."""
        self._trust_states = dict(trust_states)
        self._known = {}  # worker -> (name field, trust status, the fields of rank and status)

    def write(
        self,
        match: PrefixMatch,
        pods: Iterable[str],
        status_of: Callable[[Worker, float], TrustStatus],
        now: float,
        form: ScoresForm,
        ranks: Sequence[tuple[str, int]] = (),
        speculative: dict[Worker, int] | None = None,
    ) -> WrittenScores:
        """Write `pods`, and then `ranks`.

        Args:
            match: what each worker holds of the prompt.
            pods: their names, each once.
            status_of: takes a worker and `now`.
            now: by `time.monotonic`.
            form: how the answer is to look.
            ranks: pods and ranks, each once.
            speculative: leading blocks that a worker is about to hold, for those with any.
        """
        answer = Answer(self, status_of, now, form, speculative or {})
        if isinstance(match, MemoryPrefixMatch) and len(match.walks) == 1:
            answer.add_from_walk(match, pods, ranks)
        else:
            answer.add_each(match, pods, ranks)
        return answer.written()

    def known(self, worker: Worker, status: TrustStatus) -> tuple:
        """Return the field of the pod's name, `status`, and the fields of the rank and status."""
        known = self._known.get(worker)
        if known is not None and known[1] is status:
            return known
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        state, reason, silent, as_of = status
        tail = b"" if worker.rank == 0 else b"\x30" + varint(worker.rank)
        number = self._trust_states[state]
        if number:
            tail += b"\x38" + varint(number)
        tail += text_field(b"\x42", reason)
        if silent is not None:
            tail += b"\x49" + struct.pack("<d", silent)
        if as_of is not None:
            tail += b"\x50" + varint(as_of)
        known = self._known[worker] = (text_field(b"\x0a", worker.pod), status, tail)
        return known
