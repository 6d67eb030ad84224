"""A request to /v1/messages -> the chat-completions request that an engine makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenization.errors import ChatError, UnsupportedChatError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_AS_THEY_ARE = (
    *("add_generation_prompt", "continue_final_message", "add_special_tokens", "cache_salt"),
    *("chat_template", "chat_template_kwargs", "documents", "kv_transfer_params"),
)


def chat_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat-completions request. Raises ChatError, UnsupportedChatError."""
    messages: list[dict[str, Any]] = []
    system = request.get("system")
    if system:
        messages.append({"role": "system", "content": _text("system", system)})
    said = request.get("messages")
    if not isinstance(said, list):
        raise ChatError("messages is not a list of messages")
    for at, message in enumerate(said):
        messages += _messages(f"messages[{at}]", message)
    chat: dict[str, Any] = {"messages": messages}
    if request.get("tools"):
        chat["tools"] = [_tool(f"tools[{at}]", tool) for at, tool in enumerate(request["tools"])]
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        chat["tool_choice"] = _CHOICES.get(str(choice.get("type")), choice)
    return {**chat, **{name: request[name] for name in _AS_THEY_ARE if name in request}}


def _messages(where: str, message: Any) -> list[dict[str, Any]]:
    """What tools have answered comes first, each in a message of its own."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ChatError(f"{where} is not a message with a role")
    role, content = message["role"], message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise ChatError(f"{where}.content is neither a string nor a list of blocks")
    blocks = _Blocks()
    for at, block in enumerate(content):
        blocks.take(f"{where}.content[{at}]", block if isinstance(block, dict) else {})
    return [*blocks.answers, *blocks.message(role)]


class _Blocks:
    """The blocks of one message, by what becomes of them."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._thoughts: list[str] = []

    def take(self, where: str, block: dict[str, Any]) -> None:
        """One block; of another kind than text it must say which."""
        match block.get("type"):
            case "text":
                self._parts.append({"type": "text", "text": block.get("text")})
            case "thinking":
                self._thoughts.append(str(block.get("thinking", "")))
            case "tool_use":
                self._calls.append(_call(where, block))
            case "tool_result":
                answer = {"role": "tool", "tool_call_id": block.get("tool_use_id")}
                answer["content"] = _text(where, block.get("content") or "")
                self.answers.append(answer)
            case kind:
                raise UnsupportedChatError(
                    f"{where} is of type {kind!r}: which tokens stand for it only the model "
                    "server can tell; send token ids and multimodal_items"
                )

    def message(self, role: str) -> list[dict[str, Any]]:
        """The message without the answers of tools, if anything is left of it."""
        if not (self._parts or self._calls or self._thoughts):
            return []
        message: dict[str, Any] = {"role": role, "content": self._parts}
        if self._calls:
            message["tool_calls"] = self._calls
        if self._thoughts:
            message["reasoning"] = "\n".join(self._thoughts)
        return [message]


def _call(where: str, block: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(block.get("name"), str):
        raise ChatError(f"{where} has no name")
    function = {"name": block["name"], "arguments": json.dumps(block.get("input") or {})}
    return {"id": block.get("id"), "type": "function", "function": function}


def _tool(where: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise ChatError(f"{where} has no name")
    function = {
        "name": tool["name"],
        "description": tool.get("description"),
        "parameters": tool.get("input_schema"),
    }
    return {"type": "function", "function": function}


def _text(where: str, said: Any) -> str:
    if isinstance(said, str):
        return said
    texts = [block.get("text") for block in said if isinstance(block, dict)]
    if not isinstance(said, list) or not all(isinstance(text, str) for text in texts):
        raise ChatError(f"{where} is neither a string nor a list of texts")
    return "\n".join(map(str, texts))
