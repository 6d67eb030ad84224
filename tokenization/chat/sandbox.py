"""The environment that chat templates run in: immutable, without Python's internals, bounded.

Jinja's own sandbox bounds nothing but `range`. Here every step of a loop, every call and every
output is counted by the thread's watch, and operations that make large values are checked first.
"""

from __future__ import annotations

from functools import update_wrapper
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any

from jinja2 import nodes, pass_context, pass_eval_context, tests
from jinja2.runtime import markup_join
from jinja2.sandbox import (
    ImmutableSandboxedEnvironment,
    SandboxedEscapeFormatter,
    SandboxedFormatter,
)
from jinja2.visitor import NodeTransformer
from markupsafe import Markup
from typing_extensions import override

from tokenization.chat import expansion
from tokenization.chat.filters import BOUNDED_FILTERS
from tokenization.chat.watch import check_size, current_watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jinja2.nodes import EvalContext
    from jinja2.runtime import Context

_COUNTED, _JOINED = " counted", " joined"  # names of filters that no template can write
_METHOD_OWNERS = (str, bytes, int)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Renders what Jinja's immutable sandbox renders, within the limits of the thread's watch."""

    intercepted_binops = frozenset(expansion.OPERATORS)

    def __init__(self, **options: Any) -> None:
        super().__init__(finalize=_counted_output, **options)
        self.filters.update({**BOUNDED_FILTERS, _COUNTED: _counted, _JOINED: _joined})
        self.tests["divisibleby"] = _divisible
        del self.globals["lipsum"]  # no engine's tokens can be known for random text

    @override
    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> Any:
        _Bounding().visit(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Return what a template, a macro or a block has put out, as one text."""
        size = 0
        kept = []
        for piece in pieces:
            size += len(piece)
            kept.append(piece)
            if size > _PIECES:
                check_size(size)
        return "".join(kept)

    @override
    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is str and type(right) is str:  # what is most common
            if len(left) + len(right) > _PIECES:
                check_size(len(left) + len(right))
            return left + right
        expansion.OPERATORS[operator](left, right)
        return self.binop_table[operator](left, right)

    @override
    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        watch = current_watch()
        if watch is not None:
            watch.spend()
        if type(obj) is BuiltinMethodType and isinstance(obj.__self__, _METHOD_OWNERS):
            if obj.__name__ == "join" and len(args) == 1:
                args = (list(args[0]),)
                expansion.check_join(obj.__self__, args[0])
            check = expansion.METHODS.get(obj.__name__)
            if check is not None:
                check(obj.__self__, *args, *kwargs.values())
        return super().call(context, obj, *args, **kwargs)

    @override
    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if (
            not isinstance(value, BuiltinMethodType)
            or value.__name__ not in {"format", "format_map"}
            or not isinstance(value.__self__, str)
        ):
            return super().wrap_str_format(value)
        form = value.__self__
        formatter = (
            _EscapeFormatter(self, escape=form.escape)
            if isinstance(form, Markup)
            else _Formatter(self)
        )

        def positional(*args: Any, **kwargs: Any) -> str:
            return type(form)(formatter.vformat(form, args, kwargs))

        def mapped(mapping: Mapping[str, Any], /) -> str:
            return type(form)(formatter.vformat(form, (), mapping))

        return update_wrapper(positional if value.__name__ == "format" else mapped, value)


_PIECES = 64 * 1024  # characters below which nothing looks at the limit


class _Bounding(NodeTransformer):
    """Makes loops count their steps, and `~` check its result."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - Jinja's interface
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _COUNTED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802 - Jinja's interface
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Bounded(SandboxedFormatter):
    """Checks the widths of fields, and counts their texts."""

    @override
    def format_field(self, value: Any, format_spec: str) -> Any:
        expansion.check_widths(format_spec)
        return _counted_output(super().format_field(value, format_spec))


class _Formatter(_Bounded):
    """For `str.format`."""


class _EscapeFormatter(_Bounded, SandboxedEscapeFormatter):
    """For `Markup.format`."""


def _counted_output(value: Any) -> str:
    text = value if type(value) is str else str(value)
    watch = current_watch()
    if watch is not None:
        watch.spend(len(text))
    return text


# Filters


@pass_context  # so that Jinja does not compute it when it compiles a template
def _counted(_: Context, items: Iterable[Any]) -> Iterable[Any]:
    watch = current_watch()
    return items if watch is None else watch.counted(items)


@pass_eval_context
def _joined(context: EvalContext, items: list[Any]) -> str:
    """Return what `~` makes of its operands."""
    if context.autoescape:
        return markup_join(items)
    return BoundedEnvironment.concat(map(str, items))


def _divisible(value: Any, by: Any) -> bool:
    expansion.check_division(value, by)
    found: bool = tests.test_divisibleby(value, by)
    return found
