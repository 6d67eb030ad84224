"""The messages of a request -> the messages that a chat template is given.

As an engine does: fields that it does not know are dropped, content becomes text or parts as the
template wants it, arguments of tool calls are decoded, and messages of developers become the system
message if the template does not know developers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenization.errors import ChatError, UnsupportedPartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenization.chat.content_format import ContentFormat
    from tokenization.chat.template import ChatTemplate, Message

BILLING_HEADER = "x-anthropic-billing-header"
"""Begins a line that some clients put into the system prompt; an engine removes it."""

Part = dict[str, Any]

_TEXT_FIELDS = {  # type of a part -> its field with the text
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
_REFERENCE = "tool_reference"  # to a tool that a template may show in full
_KNOWN_PART_FIELDS = frozenset(  # the engine drops them; it keeps the others, as cache_control
    {
        *("type", "text", "refusal", "thinking", "closed", "uuid", "name", "data", "file"),
        *("image_url", "image_pil", "image_embeds", "input_audio", "audio_url", "audio_embeds"),
        *("video_url", "video_embeds", "prompt_embeds", "tool_reference"),
    }
)


def template_messages(
    given: Any, template: ChatTemplate, content_format: ContentFormat | None = None
) -> list[Message]:
    """Return the messages for a template.

    Args:
        given: the request's messages.
        template: the template that renders them.
        content_format: the form of content, None for the one that the template wants.

    Raises:
        ChatError: the model server would refuse the messages.
        UnsupportedChatError: a message has a part that is not text.
    """
    if not isinstance(given, list) or not given:
        raise ChatError("messages is empty, or not a list of messages")
    form = content_format or template.wants
    messages = [_message(f"messages[{index}]", entry, form) for index, entry in enumerate(given)]
    knows_developers = '"developer"' in template.text or "'developer'" in template.text
    if not knows_developers and any(message["role"] == "developer" for message in messages):
        messages = _with_one_system(messages)
    return messages


def _message(where: str, given: Any, form: ContentFormat) -> Message:
    if not isinstance(given, dict):
        raise ChatError(f"{where} is not an object")
    role = given.get("role")
    if not isinstance(role, str):
        raise ChatError(f"{where}.role is not a string")
    message: Message = {"role": role, "content": _content(where, role, given, form)}
    if role == "assistant":
        calls = _tool_calls(where, given.get("tool_calls"))
        if calls:
            message["tool_calls"] = calls
        reasoning = given.get("reasoning", given.get("reasoning_content"))
        if reasoning is not None:
            message["reasoning"] = message["reasoning_content"] = reasoning
    elif role == "tool" and "tool_call_id" in given:
        message["tool_call_id"] = given["tool_call_id"]
    for name in ("name", "task"):
        if isinstance(given.get(name), str):
            message[name] = given[name]
    if role == "developer":
        message["tools"] = given.get("tools")
    return message


# Content


def _content(where: str, role: str, given: dict[str, Any], form: ContentFormat) -> Any:
    content = given.get("content")
    if content is None and role != "assistant" and "content" in given:
        raise ChatError(f"{where}.content is null")
    if content is None:
        content = []
    elif isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif not isinstance(content, list):
        raise ChatError(f"{where}.content is neither a string nor a list of parts")
    parts = [_part(f"{where}.content[{index}]", part) for index, part in enumerate(content)]
    if role == "system":
        parts = [kept for part in parts if (kept := _without_billing(part)) is not None]
    has_references = any(part["type"] == _REFERENCE for part in parts)
    if form == "openai" and (role != "tool" or has_references):
        return parts
    texts = map(_text, parts)
    return "\n".join(texts if form == "openai" else filter(None, texts))


def _part(where: str, part: Any) -> Part:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ChatError(f"{where} is not a part with a type")
    if kind == _REFERENCE and isinstance(part.get("name"), str):
        return {"type": _REFERENCE, "name": part["name"]}
    field = _TEXT_FIELDS.get(kind)
    if field is None:
        raise UnsupportedPartError(where, kind)
    text = part.get(field)
    if not isinstance(text, str):
        raise ChatError(f"{where}.{field} is not a string")
    return {"type": "text", "text": text, **_without(part, *_KNOWN_PART_FIELDS)}


def _text(part: Part) -> str:
    text: str = part["name"] if part["type"] == _REFERENCE else part["text"]
    return text


def _without_billing(part: Part) -> Part | None:
    """Return a part without a billing header in its first line, None if nothing is left."""
    text = _text(part)
    if not text.startswith(BILLING_HEADER):
        return part
    rest = text.partition("\n")[2]
    if not rest:
        return None
    return {**part, "text": rest}


# Tool calls


def _tool_calls(where: str, given: Any) -> list[dict[str, Any]]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise ChatError(f"{where}.tool_calls is not a list")
    return [_tool_call(f"{where}.tool_calls[{index}]", call) for index, call in enumerate(given)]


def _tool_call(where: str, given: Any) -> dict[str, Any]:
    """Return a tool call with decoded arguments, its fields in the order that an engine has."""
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatError(f"{where} has no function with a name")
    if given.get("type", "function") != "function":
        raise ChatError(f"{where}.type is not function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        raise ChatError(f"{where}.function.arguments is not a string of JSON")
    call: dict[str, Any] = {"id": given["id"]} if "id" in given else {}
    call["function"] = {
        "arguments": _decoded(arguments),
        "name": function["name"],
        **_without(function, "arguments", "name"),
    }
    if "type" in given:
        call["type"] = given["type"]
    return {**call, **_without(given, "id", "function", "type")}


def _decoded(arguments: str) -> dict[str, Any]:
    """Return the object that JSON arguments describe, empty if they describe none."""
    try:
        decoded = json.loads(arguments)
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


# Developers


def _with_one_system(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with all of the system's and developers' as one, which comes first."""
    system: list[Message] = []
    others: list[Message] = []
    for message in messages:
        if message["role"] in ("developer", "system"):
            system.append({**_without(message, "tools"), "role": "system"})
        else:
            others.append(message)
    if len(system) == 1 and messages[0]["role"] in ("developer", "system"):
        return [*system, *others]
    content = "\n\n".join(filter(None, (_joined(message["content"]) for message in system)))
    return [{"role": "system", "content": content}, *others]


def _joined(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if "text" in part)
