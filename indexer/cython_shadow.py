"""The few names of the module `cython` that the kernel uses when it runs as plain Python.

A compiled kernel imports no such module. Where there was no C compiler, `import cython` finds the
real one if it is installed, and this one if not: so a service never needs the compiler's 16 MB.
Types do nothing here, as in Cython's own pure-Python mode.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_INTEGERS = ("Py_ssize_t", "int", "longlong", "uchar", "uint", "ulonglong", "ushort")
_UNSET = object()


class _CType:
    """A C type: it converts values as its Python type does, and cuts nothing off."""

    def __init__(self, python: type) -> None:
        self._python = python

    def __call__(self, value: Any) -> Any:
        """Return the value, converted only if it is of another type."""
        return cast(self._python, value)


def cast(kind: Any, value: Any) -> Any:
    """Return the value as one of that C type or class; None is one of every class."""
    if isinstance(kind, type) and (value is None or isinstance(value, kind)):
        return value
    return kind(value)


def declare(kind: Any = None, value: Any = _UNSET) -> Any:
    """Return the first value of a declared variable; None if none is given."""
    return None if value is _UNSET else cast(kind, value)


def _same(decorated: Any) -> Any:
    return decorated


def _directive(*_: object, **__: object) -> Callable[[Any], Any]:
    """A decorator with arguments, which mean something to the compiler alone."""
    return _same


def shadow() -> ModuleType:
    """Return a module that takes the place of `cython`."""
    module = ModuleType("cython", __doc__)
    module.__spec__ = ModuleSpec("cython", None)  # `find_spec` refuses modules without
    names: dict[str, Any] = {name: _CType(int) for name in _INTEGERS}
    names |= {"bint": _CType(bool), "double": _CType(float), "void": None, "compiled": False}
    names |= {"cast": cast, "declare": declare}
    names |= dict.fromkeys(("ccall", "cclass", "cfunc", "inline"), _same)
    names |= dict.fromkeys(("boundscheck", "exceptval", "wraparound"), _directive)
    vars(module).update(names)
    return module


def provide() -> None:
    """Make `import cython` work for a kernel in plain Python where Cython is not installed."""
    kernel = find_spec("indexer.kernel.keys")
    if kernel is None or not str(kernel.origin).endswith(".py"):
        return
    if find_spec("cython") is None:
        sys.modules["cython"] = shadow()


provide()
