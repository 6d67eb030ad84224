"""A request to /v1/messages -> the chat-completions request that an engine makes of it."""

from __future__ import annotations

import json
from functools import lru_cache
from reprlib import repr  # noqa: A004 - the one that cuts long values
from typing import TYPE_CHECKING, Any

from tokenization.chat.messages import BILLING_HEADER
from tokenization.chat.template import compile_template
from tokenization.errors import ChatError, TokenizationError, UnsupportedPartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
_COPIED_FIELDS = ("cache_salt", "chat_template_kwargs", "kv_transfer_params")


def to_chat_completion(request: Mapping[str, Any], *, system_first: bool = False) -> dict[str, Any]:
    """Return the body of the equivalent chat-completions request.

    Args:
        request: the body of a request to /v1/messages.
        system_first: whether the template allows a system message in the first place only. The
            texts of later ones then join the first.

    Raises:
        ChatError: the model server would refuse the request.
        UnsupportedChatError: the request contains images or the like.
    """
    given = request.get("messages")
    if not isinstance(given, list):
        raise ChatError("messages is not a list of messages")
    moved = [_system_text(m.get("content")) for m in given if system_first and _is_system(m)]
    system = "".join([_system_text(request.get("system"), is_top_level=True), *moved])
    messages = [{"role": "system", "content": system}] if system else []
    for index, message in enumerate(given):
        if not (system_first and _is_system(message)):
            messages += _messages(f"messages[{index}]", message)
    return {
        "messages": messages,
        **_tools(request),
        **_effort(request),
        **{name: request[name] for name in _COPIED_FIELDS if name in request},
    }


@lru_cache(256)
def takes_system_first_only(template: str) -> bool:
    """Whether the template fails on a system message that is not the first message."""
    messages = [{"role": role, "content": "t"} for role in ("system", "user", "system", "user")]
    try:
        compile_template(template).render(messages)
    except TokenizationError:
        return True
    return False


# Messages


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "system"


def _system_text(content: Any, *, is_top_level: bool = False) -> str:
    """Return the text of a system prompt without billing headers.

    Like the engine, it keeps a header in the request's own `system` if that is a plain string.
    """
    if isinstance(content, str):
        is_header = content.startswith(BILLING_HEADER) and not is_top_level
        return "" if is_header else content
    if not isinstance(content, list | None):
        raise ChatError("the system prompt is neither a string nor a list of blocks")
    texts = [block.get("text") for block in content or () if isinstance(block, dict)]
    return "".join(t for t in texts if isinstance(t, str) and not t.startswith(BILLING_HEADER))


def _messages(where: str, message: Any) -> list[dict[str, Any]]:
    """Return the chat messages for one message: one for each tool's result, then the rest."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ChatError(f"{where} is not a message with a role")
    role, content = message["role"], message.get("content")
    if role == "system":
        text = _system_text(content)
        return [{"role": role, "content": text}] if text else []
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise ChatError(f"{where}.content is neither a string nor a list of blocks")
    blocks = _Blocks(role)
    for index, block in enumerate(content):
        blocks.add(f"{where}.content[{index}]", block if isinstance(block, dict) else {})
    return [*blocks.tool_results, *blocks.message()]


class _Blocks:
    """The blocks of one message, sorted by what they become.

    Attributes:
        tool_results: messages of the role `tool`.
    """

    def __init__(self, role: str) -> None:
        self.tool_results: list[dict[str, Any]] = []
        self._role = role
        self._parts: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._thoughts: list[str] = []

    def add(self, where: str, block: dict[str, Any]) -> None:
        """Add the next block. Raises ChatError, UnsupportedChatError."""
        match block.get("type"):
            case "text":
                if block.get("text"):
                    self._parts.append({"type": "text", "text": block["text"]})
            case "thinking":
                self._thoughts.append(str(block.get("thinking") or ""))
            case "redacted_thinking" | "tool_reference":
                pass  # the engine drops them
            case "tool_use":
                self._calls.append(_tool_call(where, block))
            case "tool_result" if self._role == "user":
                self.tool_results += _tool_results(where, block)
            case kind:
                raise UnsupportedPartError(where, kind)

    def message(self) -> Iterator[dict[str, Any]]:
        """Yield the message without tool results, unless it is a user's and nothing is left."""
        message: dict[str, Any] = {"role": self._role}
        if self._thoughts:
            message["reasoning"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = self._calls
        if self._parts:
            is_text = len(self._parts) == 1
            message["content"] = self._parts[0]["text"] if is_text else self._parts
        if self._parts or self._role != "user":
            yield message


def _tool_call(where: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("name"), str):
        raise ChatError(f"{where} has no name")
    function = {"name": block["name"], "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool_results(where: str, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the texts of a tool's result as one message, and its references as another."""
    content = block.get("content")
    items = content if isinstance(content, list) else []
    texts = [content] if isinstance(content, str) else []
    references = []
    for index, item in enumerate(item for item in items if isinstance(item, dict)):
        match item.get("type"):
            case "text":
                texts.append(item.get("text", ""))
            case "tool_reference":
                name = item.get("tool_name") or item.get("name")
                references += [{"type": "tool_reference", "name": name}] if name else []
            case kind:
                raise UnsupportedPartError(f"{where}.content[{index}]", kind)
    message = {"role": "tool", "tool_call_id": block.get("tool_use_id") or ""}
    yield {**message, "content": "\n".join(map(str, texts))}
    if references:
        yield {**message, "content": references}


# Other fields that change the text


def _tools(request: Mapping[str, Any]) -> dict[str, Any]:
    given, choice = request.get("tools"), request.get("tool_choice")
    if given is None:
        return {}
    if not isinstance(given, list):
        raise ChatError("tools is not a list of tools")
    kind = choice.get("type") if isinstance(choice, dict) else "auto"
    if not isinstance(kind, str) or kind not in _TOOL_CHOICES:
        raise ChatError(f"tool_choice.type is {repr(kind)}")
    tools = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(given)]
    return {"tools": tools, "tool_choice": _TOOL_CHOICES[kind]}


def _tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise ChatError(f"{where} has no name")
    function = {
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
        "strict": tool.get("strict"),
        "defer_loading": tool.get("defer_loading"),
    }
    return {"type": "function", "function": function}


def _effort(request: Mapping[str, Any]) -> dict[str, Any]:
    thinking, output = request.get("thinking"), request.get("output_config")
    if isinstance(thinking, dict) and thinking.get("type") == "disabled":
        return {"reasoning_effort": "none"}
    if isinstance(output, dict) and output.get("effort") is not None:
        return {"reasoning_effort": output["effort"]}
    return {}
