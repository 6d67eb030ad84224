"""Whether a chat template wants a message's content as text or as a list of parts.

An engine decides that by looking for a loop over the content of a message in the template's syntax
tree: "openai" (parts) if there is one, else "string".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Collection

ContentFormat = Literal["string", "openai"]

_WRAPPERS = (nodes.Filter, nodes.Test)


def content_format(tree: nodes.Template) -> ContentFormat:
    """What the template with this syntax tree wants."""
    lists = _aliases(tree, "messages")
    loops = list(tree.find_all(nodes.For))
    messages = {
        loop.target.name
        for loop in loops
        if isinstance(loop.target, nodes.Name) and _accessed(loop.iter) in lists
    }
    return "openai" if any(_content_of(loop.iter) in messages for loop in loops) else "string"


def _aliases(tree: nodes.Template, name: str) -> Collection[str]:
    """`name`, and all that it is assigned to, in part or as a whole."""
    found = {name}
    assigned = [
        (node.target.name, _accessed(node.node))
        for node in tree.find_all(nodes.Assign)
        if isinstance(node.target, nodes.Name)
    ]
    while more := {target for target, source in assigned if source in found} - found:
        found |= more
    return found


def _unwrapped(node: nodes.Node | None) -> nodes.Node | None:
    """What is filtered, tested or sliced."""
    while True:
        if isinstance(node, _WRAPPERS) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _accessed(node: nodes.Node | None) -> str | None:
    """The variable that is read, or a part of it."""
    node = _unwrapped(node)
    return node.name if isinstance(node, nodes.Name) and node.ctx == "load" else None


def _content_of(node: nodes.Node | None) -> str | None:
    """The variable whose `content` is read."""
    node = _unwrapped(node)
    if isinstance(node, nodes.Getattr) and node.attr == "content":
        return _name(node.node)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return _name(node.node) if node.arg.value == "content" else None
    return None


def _name(node: nodes.Node) -> str | None:
    return node.name if isinstance(node, nodes.Name) and node.ctx == "load" else None
