"""What the API server does wrong when it is told to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

Verb = Literal["list", "watch", "event"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: of a list or a watch: `status` (an answer with that status), `close` (no answer),
            `silent` (no answer, and the connection stays), `half` (of the answer, or of the next
            event), `slow` (byte by byte), `garbage` (no JSON), `huge`;
            of a list alone: `answer` (this body);
            of a watch alone: `end` (properly, but at once), `cut` (so within an event), `gone`,
            `error` (an event ERROR), `quiet` (nothing, even if something happens).
    """

    kind: str
    status: int = 500
    retry_after: int | None = None
    size: int = 0
    body: bytes = b"{}"
    message: str = ""


class Faults:
    """What to do wrong next: each fault happens once, in order.

    Args:
        choose: asked at each list, watch and event if nothing was planned.
    """

    def __init__(self) -> None:
        self._planned: dict[Verb, deque[Fault]] = {"list": deque(), "watch": deque()}
        self._planned["event"] = deque()
        self.forever: dict[Verb, Fault] = {}
        """What is done wrong each time."""

    def plan(self, verb: Verb, *faults: Fault) -> None:
        """Do these wrong at the next lists, watches or events."""
        self._planned[verb] += faults

    @property
    def are_left(self) -> bool:
        """Whether something that was planned has not happened yet."""
        return any(self._planned.values())

    def next(self, verb: Verb) -> Fault | None:
        """What to do wrong now."""
        if self._planned[verb]:
            return self._planned[verb].popleft()
        return self.forever.get(verb)
