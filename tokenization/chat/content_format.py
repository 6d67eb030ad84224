"""Whether a chat template wants a message's content as text or as a list of parts.

An engine decides that by looking into the template's syntax tree for a loop over the content of a
message, or over a macro's parameter that is given it: "openai" (parts) if there is one, else
"string".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ContentFormat = Literal["string", "openai"]

_WRAPPERS = (nodes.Filter, nodes.Test)


def content_format(tree: nodes.Template) -> ContentFormat:
    """What the template with this syntax tree wants."""
    lists = _aliases(tree, "messages")
    loops = list(tree.find_all(nodes.For))
    over_messages = [loop for loop in loops if _read(loop.iter) in lists]
    if not all(isinstance(loop.target, nodes.Name) for loop in over_messages):
        return "string"  # where an engine's look fails
    messages = {loop.target.name for loop in over_messages if isinstance(loop.target, nodes.Name)}
    given = dict(_loops_in_macros(tree, messages))
    wanted = any(
        _content_of(loop.iter) in messages
        or (isinstance(loop.iter, nodes.Name) and loop.iter.name in given.get(loop, {"content"}))
        for loop in loops
    )
    return "openai" if wanted else "string"


def _loops_in_macros(
    tree: nodes.Template, messages: Collection[str]
) -> Iterator[tuple[nodes.For, set[str]]]:
    """Each loop in a macro, with the macro's parameters that are given a message's content."""
    calls = [call for call in tree.find_all(nodes.Call) if isinstance(call.node, nodes.Name)]
    for macro in tree.find_all(nodes.Macro):
        parameters = [parameter.name for parameter in macro.args]
        given: set[str] = set()
        for call in calls:
            if isinstance(call.node, nodes.Name) and call.node.name == macro.name:
                named = [(each.key, each.value) for each in call.kwargs]
                placed = zip(parameters, call.args, strict=False)
                given |= {
                    name for name, value in [*placed, *named] if _content_of(value) in messages
                }
        for loop in macro.find_all(nodes.For):
            yield loop, given & set(parameters)


def _aliases(tree: nodes.Template, name: str) -> Collection[str]:
    """`name`, and all that it is assigned to, in part or as a whole; "a.b" for b of namespace a."""
    found = {name}
    assigned = [pair for node in tree.find_all(nodes.Assign) for pair in _assigned(node)]
    while more := {target for target, source in assigned if source in found} - found:
        found |= more
    return found


def _assigned(node: nodes.Assign) -> Iterator[tuple[str, str | None]]:
    """What is assigned to, and what is read for it."""
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
        for each in value.kwargs:
            yield f"{target.name}.{each.key}", _read(each.value)


def _unwrapped(node: nodes.Node | None) -> nodes.Node | None:
    """What is filtered, tested or sliced."""
    while True:
        if isinstance(node, _WRAPPERS) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _read(node: nodes.Node | None) -> str | None:
    """The variable that is read, or of which a part is."""
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    return _name(node)


def _content_of(node: nodes.Node | None) -> str | None:
    """The variable whose `content` is read."""
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and node.attr == "content":
        return _name(node.node)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return _name(node.node) if node.arg.value == "content" else None
    return None


def _name(node: nodes.Node | None) -> str | None:
    return node.name if isinstance(node, nodes.Name) and node.ctx == "load" else None
