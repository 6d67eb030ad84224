"""A request to /v1/messages -> the chat-completions request that an engine makes of it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tokenization.chat.template import compile_template
from tokenization.errors import ChatError, TokenizationError, UnsupportedChatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BILLING = "x-anthropic-billing-header"
_CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "named"}
_AS_THEY_ARE = ("cache_salt", "chat_template_kwargs", "kv_transfer_params")


def to_chat_completion(request: Mapping[str, Any], *, system_first: bool = False) -> dict[str, Any]:
    """The body of a chat-completions request.

    system_first: whether the template takes what the system says in the first message only.
    Raises ChatError, UnsupportedChatError.
    """
    said = request.get("messages")
    if not isinstance(said, list):
        raise ChatError("messages is not a list of messages")
    inline = [_system(m.get("content")) for m in said if system_first and _is_system(m)]
    system = "".join([_system(request.get("system"), of_blocks_only=True), *inline])
    messages = [{"role": "system", "content": system}] if system else []
    for at, message in enumerate(said):
        if not (system_first and _is_system(message)):
            messages += _messages(f"messages[{at}]", message)
    return {
        "messages": messages,
        **_tools(request),
        **_effort(request),
        **{name: request[name] for name in _AS_THEY_ARE if name in request},
    }


@lru_cache(256)
def takes_system_first_only(template: str) -> bool:
    """Whether a template fails where the system speaks a second time."""
    said = [{"role": role, "content": "t"} for role in ("system", "user", "system", "user")]
    try:
        compile_template(template).render(said)
    except TokenizationError:
        return True
    return False


# Messages


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "system"


def _system(said: Any, *, of_blocks_only: bool = False) -> str:
    """What the system says, without what some clients put there for the bill."""
    if isinstance(said, str):
        is_bill = said.startswith(_BILLING) and not of_blocks_only
        return "" if is_bill else said
    if not isinstance(said, list | None):
        raise ChatError("what the system says is neither a string nor a list of blocks")
    texts = [block.get("text") for block in said or () if isinstance(block, dict)]
    return "".join(t for t in texts if isinstance(t, str) and not t.startswith(_BILLING))


def _messages(where: str, message: Any) -> list[dict[str, Any]]:
    """What tools have answered comes first, each in a message of its own."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ChatError(f"{where} is not a message with a role")
    role, content = message["role"], message.get("content")
    if role == "system":
        text = _system(content)
        return [{"role": role, "content": text}] if text else []
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise ChatError(f"{where}.content is neither a string nor a list of blocks")
    blocks = _Blocks(role)
    for at, block in enumerate(content):
        blocks.take(f"{where}.content[{at}]", block if isinstance(block, dict) else {})
    return [*blocks.answers, *blocks.message()]


class _Blocks:
    """The blocks of one message, by what becomes of them."""

    def __init__(self, role: str) -> None:
        self.answers: list[dict[str, Any]] = []
        self._role = role
        self._parts: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._thoughts: list[str] = []

    def take(self, where: str, block: dict[str, Any]) -> None:
        """One block."""
        match block.get("type"):
            case "text":
                if block.get("text"):
                    self._parts.append({"type": "text", "text": block["text"]})
            case "thinking":
                self._thoughts.append(str(block.get("thinking") or ""))
            case "redacted_thinking" | "tool_reference":
                pass  # nothing of it is shown
            case "tool_use":
                self._calls.append(_call(where, block))
            case "tool_result" if self._role == "user":
                self.answers += _answers(where, block)
            case kind:
                raise _unsupported(where, kind)

    def message(self) -> Iterator[dict[str, Any]]:
        """The message without the answers of tools, if anything is left of a user's."""
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


def _unsupported(where: str, kind: Any) -> UnsupportedChatError:
    return UnsupportedChatError(
        f"{where} is of type {kind!r}: which tokens stand for it only the model server can tell; "
        "send token ids and multimodal_items"
    )


def _call(where: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("name"), str):
        raise ChatError(f"{where} has no name")
    function = {"name": block["name"], "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _answers(where: str, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = block.get("content")
    items = content if isinstance(content, list) else []
    texts = [content] if isinstance(content, str) else []
    references = []
    for at, item in enumerate(each for each in items if isinstance(each, dict)):
        match item.get("type"):
            case "text":
                texts.append(item.get("text", ""))
            case "tool_reference":
                name = item.get("tool_name") or item.get("name")
                references += [{"type": "tool_reference", "name": name}] if name else []
            case kind:
                raise _unsupported(f"{where}.content[{at}]", kind)
    answer = {"role": "tool", "tool_call_id": block.get("tool_use_id") or ""}
    yield {**answer, "content": "\n".join(map(str, texts))}
    if references:
        yield {**answer, "content": references}


# What else bears on the text


def _tools(request: Mapping[str, Any]) -> dict[str, Any]:
    said, choice = request.get("tools"), request.get("tool_choice")
    if said is None:
        return {}
    if not isinstance(said, list):
        raise ChatError("tools is not a list of tools")
    kind = choice.get("type") if isinstance(choice, dict) else "auto"
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise ChatError(f"tool_choice.type is {kind!r}")
    tools = [_tool(f"tools[{at}]", tool) for at, tool in enumerate(said)]
    return {"tools": tools, "tool_choice": _CHOICES[kind]}


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
