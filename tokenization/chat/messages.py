"""The messages of a request -> the messages that a chat template is given.

What an engine does to them in between: fields it does not know are dropped, content becomes text or
parts as the template wants it, arguments of tool calls are decoded, developers become the system
where the template knows none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenization.errors import ChatError, UnsupportedChatError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenization.chat.content_format import ContentFormat
    from tokenization.chat.template import ChatTemplate, Message

Part = dict[str, Any]

_TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
_REFERENCE = "tool_reference"  # to a tool that a template may show in full
_OF_OTHER_PARTS = frozenset(
    {
        *("type", "text", "refusal", "thinking", "closed", "uuid", "name", "data", "file"),
        *("image_url", "image_pil", "image_embeds", "input_audio", "audio_url", "audio_embeds"),
        *("video_url", "video_embeds", "prompt_embeds", "tool_reference"),
    }
)
_BILLING = "x-anthropic-billing-header"


def template_messages(
    said: Any, template: ChatTemplate, wants: ContentFormat | None = None
) -> list[Message]:
    """The messages for `template`. wants: the form of content, where it is not as it says itself.

    Raises ChatError, UnsupportedChatError.
    """
    if not isinstance(said, list) or not said:
        raise ChatError("messages is not a list of messages")
    form = wants or template.wants
    messages = [_message(f"messages[{at}]", each, form) for at, each in enumerate(said)]
    knows_developers = '"developer"' in template.text or "'developer'" in template.text
    if not knows_developers and any(each["role"] == "developer" for each in messages):
        messages = _one_system(messages)
    return messages


def _message(where: str, said: Any, wants: ContentFormat) -> Message:
    if not isinstance(said, dict):
        raise ChatError(f"{where} is not an object")
    role = said.get("role")
    if not isinstance(role, str):
        raise ChatError(f"{where}.role is not a string")
    message: Message = {"role": role, "content": _content(where, role, said, wants)}
    if role == "assistant":
        calls = _tool_calls(where, said.get("tool_calls"))
        if calls:
            message["tool_calls"] = calls
        reasoning = said.get("reasoning", said.get("reasoning_content"))
        if reasoning is not None:
            message["reasoning"] = message["reasoning_content"] = reasoning
    elif role == "tool" and "tool_call_id" in said:
        message["tool_call_id"] = said["tool_call_id"]
    for name in ("name", "task"):
        if isinstance(said.get(name), str):
            message[name] = said[name]
    if role == "developer":
        message["tools"] = said.get("tools")
    return message


# Content


def _content(where: str, role: str, said: dict[str, Any], wants: ContentFormat) -> Any:
    content = said.get("content")
    if content is None and role != "assistant" and "content" in said:
        raise ChatError(f"{where}.content is null")
    if content is None:
        content = []
    elif isinstance(content, str):
        content = [{"type": "text", "text": content}]
    elif not isinstance(content, list):
        raise ChatError(f"{where}.content is neither a string nor a list of parts")
    parts = [_part(f"{where}.content[{at}]", part) for at, part in enumerate(content)]
    if role == "system":
        parts = [shown for part in parts if (shown := _without_billing(part)) is not None]
    refers = any(part["type"] == _REFERENCE for part in parts)
    if wants == "openai" and (role != "tool" or refers):
        return parts
    texts = map(_text, parts)
    return "\n".join(texts if wants == "openai" else filter(None, texts))


def _part(where: str, part: Any) -> Part:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ChatError(f"{where} is no part of a content: it has no type")
    if kind == _REFERENCE and isinstance(part.get("name"), str):
        return {"type": _REFERENCE, "name": part["name"]}
    field = _TEXTS.get(kind)
    if field is None:
        raise UnsupportedChatError(
            f"{where} is of type {kind!r}: which tokens stand for it only the model server can "
            "tell; send token ids and multimodal_items"
        )
    text = part.get(field)
    if not isinstance(text, str):
        raise ChatError(f"{where}.{field} is not a string")
    return {"type": "text", "text": text, **_without(part, *_OF_OTHER_PARTS)}


def _text(part: Part) -> str:
    text: str = part["name"] if part["type"] == _REFERENCE else part["text"]
    return text


def _without_billing(part: Part) -> Part | None:
    """A part without the line some clients put first, None if that was all."""
    text = _text(part)
    if not text.startswith(_BILLING):
        return part
    rest = text.partition("\n")[2]
    if not rest:
        return None
    return {**part, "text": rest}


# Tool calls


def _tool_calls(where: str, said: Any) -> list[dict[str, Any]]:
    if said is None:
        return []
    if not isinstance(said, list):
        raise ChatError(f"{where}.tool_calls is not a list")
    return [_tool_call(f"{where}.tool_calls[{at}]", call) for at, call in enumerate(said)]


def _tool_call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatError(f"{where} has no function with a name")
    if call.get("type", "function") != "function":
        raise ChatError(f"{where}.type is not function")
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        raise ChatError(f"{where}.function.arguments is not a string of JSON")
    found: dict[str, Any] = {"id": call["id"]} if "id" in call else {}
    found["function"] = {
        "arguments": _arguments(arguments),
        "name": function["name"],
        **_without(function, "arguments", "name"),
    }
    if "type" in call:
        found["type"] = call["type"]
    return {**found, **_without(call, "id", "function", "type")}


def _arguments(said: str) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _without(said: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key not in names}


# Developers


def _one_system(messages: Sequence[Message]) -> list[Message]:
    """Developers are the system; all that it says comes first, in one message."""
    system: list[Message] = []
    others: list[Message] = []
    for message in messages:
        if message["role"] in ("developer", "system"):
            system.append({**_without(message, "tools"), "role": "system"})
        else:
            others.append(message)
    if len(system) == 1 and messages[0]["role"] in ("developer", "system"):
        return [*system, *others]
    content = "\n\n".join(filter(None, (_whole(message["content"]) for message in system)))
    return [{"role": "system", "content": content}, *others]


def _whole(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if "text" in part)
