"""Whether a chat template wants a message's content as text or as a list of parts.

As an engine does, this searches the template's syntax tree for a loop over the content of a
message, or over a macro's parameter that receives one: with such a loop the format is "openai", a
list of parts, and without it "string". vLLM's --chat-template-content-format has the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ContentFormat = Literal["string", "openai"]

_WRAPPERS = (nodes.Filter, nodes.Test)


def content_format(tree: nodes.Template) -> ContentFormat:
    """Return the format that the template with this syntax tree wants."""
    lists = _aliases(tree, "messages")
    loops = list(tree.find_all(nodes.For))
    over_messages = [loop for loop in loops if _read(loop.iter) in lists]
    if not all(isinstance(loop.target, nodes.Name) for loop in over_messages):
        return "string"  # the engine's search fails here, and this is its fallback
    messages = {loop.target.name for loop in over_messages if isinstance(loop.target, nodes.Name)}
    in_macros = dict(_loops_in_macros(tree, messages))

    def reads_content(loop: nodes.For) -> bool:
        if _content_of(loop.iter) in messages:
            return True
        # Outside macros, a variable of this name is taken for a copy of a message's content.
        names = in_macros.get(loop, {"content"})
        return isinstance(loop.iter, nodes.Name) and loop.iter.name in names

    return "openai" if any(map(reads_content, loops)) else "string"


def _loops_in_macros(
    tree: nodes.Template, messages: Collection[str]
) -> Iterator[tuple[nodes.For, set[str]]]:
    """Yield the loops in macros, with the macro's parameters that receive a message's content."""
    calls = [call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)]
    for macro in tree.find_all(nodes.Macro):
        parameters = [parameter.name for parameter in macro.args]
        received: set[str] = set()
        for call in calls:
            if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
                by_name = [(argument.key, argument.value) for argument in call.kwargs]
                by_position = zip(parameters, call.args, strict=False)
                received |= {
                    name
                    for name, value in [*by_position, *by_name]
                    if _content_of(value) in messages
                }
        for loop in macro.find_all(nodes.For):
            yield loop, received & set(parameters)


def _aliases(tree: nodes.Template, name: str) -> Collection[str]:
    """Return `name` and the names of all variables that it, or a part of it, is assigned to.

    The name of an attribute `b` of a namespace `a` is "a.b".
    """
    aliases = {name}
    assigned = [pair for node in tree.find_all(nodes.Assign) for pair in _assigned(node)]
    while more := {target for target, source in assigned if source in aliases} - aliases:
        aliases |= more
    return aliases


def _assigned(node: nodes.Assign) -> Iterator[tuple[str, str | None]]:
    """Yield the variables that are assigned to, with the variables that their values come from."""
    target, value = node.target, node.node
    if isinstance(target, nodes.NSRef):
        yield f"{target.name}.{target.attr}", _read(value)
    if not isinstance(target, nodes.Name):
        return
    yield target.name, _read(value)
    if (
        isinstance(value, nodes.Call)
        and isinstance(value.node, nodes.Name)
        and value.node.name == "namespace"
    ):
        for argument in value.kwargs:
            yield f"{target.name}.{argument.key}", _read(argument.value)


def _unwrapped(node: nodes.Node | None) -> nodes.Node | None:
    """Return the expression inside of filters, tests and slices."""
    while True:
        if isinstance(node, _WRAPPERS) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _read(node: nodes.Node | None) -> str | None:
    """Return the name of the variable that an expression reads, None if it is more complicated."""
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return _name(node)


def _content_of(node: nodes.Node | None) -> str | None:
    """Return the name of the variable whose `content` an expression reads, None if none."""
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and node.attr == "content":
        return _name(node.node)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return _name(node.node) if node.arg.value == "content" else None
    return None


def _name(node: nodes.Node | None) -> str | None:
    return node.name if isinstance(node, nodes.Name) and node.ctx == "load" else None
