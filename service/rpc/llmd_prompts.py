"""Requests of llm-d-kv-cache's tokenization service -> prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.rpc.errors import InvalidRequestError
from service.rpc.prompts import from_json
from tokenization import ChatCompletion, Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvatlas.compat import tokenization_pb2 as compat

    from service.rpc.prompts import PromptReader
    from tokenization import Text


def text_prompt(request: compat.TokenizeRequest, prompts: PromptReader) -> Text:
    """Return the text of a TokenizeRequest."""
    return prompts.text("input", request.input, add_special_tokens=request.add_special_tokens)


def completion_prompt(request: compat.RenderCompletionRequest) -> Completion:
    """Return the completion of a RenderCompletionRequest."""
    return Completion({"prompt": request.prompt})


def chat_prompt(
    request: compat.RenderChatCompletionRequest, prompts: PromptReader
) -> ChatCompletion:
    """Return the chat of a RenderChatCompletionRequest."""
    body: dict[str, Any] = {"messages": [_message(message) for message in request.messages]}
    if request.HasField("tools_json"):
        body["tools"] = from_json("tools_json", request.tools_json)
    if request.HasField("chat_template_kwargs"):
        arguments = prompts.json_object("chat_template_kwargs", request.chat_template_kwargs)
        body["chat_template_kwargs"] = arguments
    if request.HasField("add_generation_prompt"):
        body["add_generation_prompt"] = request.add_generation_prompt
    return ChatCompletion({**body, **_template_fields(request)})


def older_chat_prompt(request: compat.ChatTemplateRequest) -> ChatCompletion:
    """Return the chat of a ChatTemplateRequest, the deprecated form."""
    if len(request.conversation_turns) != 1:
        raise InvalidRequestError(
            "conversation_turns is not one conversation: send one request for each"
        )
    (turn,) = request.conversation_turns
    body = {
        "messages": [_message(message) for message in turn.messages],
        "add_generation_prompt": request.add_generation_prompt,
        "chat_template_kwargs": _object(request.chat_template_kwargs),
        **_template_fields(request),
    }
    if request.tools:
        body["tools"] = [_object(tool.tool) for tool in request.tools]
    if request.documents:
        body["documents"] = [_object(document.document) for document in request.documents]
    return ChatCompletion(body)


def _template_fields(
    request: compat.RenderChatCompletionRequest | compat.ChatTemplateRequest,
) -> dict[str, Any]:
    fields: dict[str, Any] = {"continue_final_message": request.continue_final_message}
    if request.chat_template:
        fields["chat_template"] = request.chat_template
    return fields


def _message(given: compat.ChatMessage) -> dict[str, Any]:
    message: dict[str, Any] = {"role": given.role}
    if given.content_parts:
        message["content"] = [_part(part) for part in given.content_parts]
    elif given.HasField("content"):
        message["content"] = given.content
    if given.HasField("tool_calls_json"):
        message["tool_calls"] = from_json("tool_calls_json", given.tool_calls_json)
    return message


def _part(given: compat.ContentPart) -> dict[str, Any]:
    part: dict[str, Any] = {"type": given.type}
    if given.HasField("text"):
        part["text"] = given.text
    if given.HasField("image_url"):
        part["image_url"] = {"url": given.image_url.url}
    return part


def _object(fields: Mapping[str, compat.Value]) -> dict[str, Any]:
    """Return fields as JSON would have them, sorted by name: a protobuf map has no order."""
    return {name: _value(fields[name]) for name in sorted(fields)}


def _value(value: compat.Value) -> Any:
    match value.WhichOneof("value"):
        case "list_value":
            return [_value(entry) for entry in value.list_value.values]
        case "struct_value":
            return _object(value.struct_value.fields)
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case None:
            return None
        case name:
            return getattr(value, name)
