"""A call as the event loop runs it: what a step of it writes is sent at the end of the step."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from types import TracebackType

    from service.listening.http2 import Outbox


class Steps(Coroutine[Any, Any, None]):
    """Runs a coroutine.

    Its first step counts as begun when this is made. So calls that came together, which all have
    their first steps in one round of the event loop, are answered together.

    Args:
        coroutine: the call.
        outbox: of its connection.
    """

    __slots__ = ("_coroutine", "_is_first", "_outbox")

    def __init__(self, coroutine: Coroutine[Any, Any, None], outbox: Outbox) -> None:
        self._coroutine = coroutine
        self._outbox = outbox
        self._is_first = True
        outbox.hold()

    @override
    def send(self, value: Any) -> Any:
        self._begin()
        try:
            return self._coroutine.send(value)
        finally:
            self._outbox.let_go()

    @override
    def throw(
        self, typ: Any, val: BaseException | object = None, tb: TracebackType | None = None
    ) -> Any:
        self._begin()
        try:
            return self._coroutine.throw(typ)
        finally:
            self._outbox.let_go()

    @override
    def close(self) -> None:
        self._coroutine.close()

    @override
    def __await__(self) -> Any:
        raise TypeError("only a task runs a call")

    def _begin(self) -> None:
        if self._is_first:
            self._is_first = False
        else:
            self._outbox.hold()
