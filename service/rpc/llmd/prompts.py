"""Requests of llm-d-kv-cache's tokenization service -> prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.rpc.bounds.json_text import JsonReader
from service.rpc.errors import InvalidRequestError, TooLargeError
from tokenization import ChatCompletion, Completion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvatlas.compat import tokenization_pb2 as compat

    from service.rpc.prompts import PromptReader
    from tokenization import Text

_MOST_MESSAGES = 20_000  # messages of a request and their parts: converting one takes microseconds
_MOST_VALUES = 20_000  # of a request in the older form, likewise


def text_prompt(request: compat.TokenizeRequest, prompts: PromptReader) -> Text:
    """Return the text of a TokenizeRequest."""
    return prompts.text("input", request.input, add_special_tokens=request.add_special_tokens)


def completion_prompt(request: compat.RenderCompletionRequest, prompts: PromptReader) -> Completion:
    """Return the completion of a RenderCompletionRequest."""
    size = request.ByteSize()
    prompts.check_bytes("the request", size)
    return Completion({"prompt": request.prompt}, size)


def chat_prompt(
    request: compat.RenderChatCompletionRequest, prompts: PromptReader
) -> ChatCompletion:
    """Return the chat of a RenderChatCompletionRequest."""
    size = request.ByteSize()
    prompts.check_bytes("the request", size)
    json = prompts.json_reader()
    body: dict[str, Any] = {"messages": _messages(request.messages, json)}
    if request.HasField("tools_json"):
        body["tools"] = json.read("tools_json", request.tools_json)
    if request.HasField("chat_template_kwargs"):
        arguments = prompts.json_object("chat_template_kwargs", request.chat_template_kwargs, json)
        body["chat_template_kwargs"] = arguments
    if request.HasField("add_generation_prompt"):
        body["add_generation_prompt"] = request.add_generation_prompt
    return ChatCompletion({**body, **_template_fields(request)}, size)


def older_chat_prompt(request: compat.ChatTemplateRequest, prompts: PromptReader) -> ChatCompletion:
    """Return the chat of a ChatTemplateRequest, the deprecated form."""
    size = request.ByteSize()
    prompts.check_bytes("the request", size)
    if len(request.conversation_turns) != 1:
        raise InvalidRequestError(
            "conversation_turns is not one conversation: send one request for each"
        )
    (turn,) = request.conversation_turns
    values = _Values(_MOST_VALUES)
    body = {
        "messages": _messages(turn.messages, JsonReader(_MOST_VALUES)),
        "add_generation_prompt": request.add_generation_prompt,
        "chat_template_kwargs": values.json_object(request.chat_template_kwargs),
        **_template_fields(request),
    }
    if request.tools:
        body["tools"] = [values.json_object(tool.tool) for tool in request.tools]
    if request.documents:
        body["documents"] = [values.json_object(each.document) for each in request.documents]
    return ChatCompletion(body, size)


def _template_fields(
    request: compat.RenderChatCompletionRequest | compat.ChatTemplateRequest,
) -> dict[str, Any]:
    fields: dict[str, Any] = {"continue_final_message": request.continue_final_message}
    if request.chat_template:
        fields["chat_template"] = request.chat_template
    return fields


def _messages(given: Sequence[compat.ChatMessage], json: JsonReader) -> list[dict[str, Any]]:
    left = _MOST_MESSAGES - len(given)
    if left >= 0:
        left -= sum(len(message.content_parts) for message in given)
    if left < 0:
        raise TooLargeError(f"messages: there are more than {_MOST_MESSAGES}, with their parts", "")
    return [_message(message, json) for message in given]


def _message(given: compat.ChatMessage, json: JsonReader) -> dict[str, Any]:
    message: dict[str, Any] = {"role": given.role}
    if given.content_parts:
        message["content"] = [_part(part) for part in given.content_parts]
    elif given.HasField("content"):
        message["content"] = given.content
    if given.HasField("tool_calls_json"):
        message["tool_calls"] = json.read("tool_calls_json", given.tool_calls_json)
    return message


def _part(given: compat.ContentPart) -> dict[str, Any]:
    part: dict[str, Any] = {"type": given.type}
    if given.HasField("text"):
        part["text"] = given.text
    if given.HasField("image_url"):
        part["image_url"] = {"url": given.image_url.url}
    return part


class _Values:
    """Converts the values of one request, up to a number of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def json_object(self, fields: Mapping[str, compat.Value]) -> dict[str, Any]:
        """Return fields as JSON would have them, sorted by name: a protobuf map has no order."""
        self._spend(len(fields))
        return {name: self._value(fields[name]) for name in sorted(fields)}

    def _value(self, value: compat.Value) -> Any:
        match value.WhichOneof("value"):
            case "list_value":
                self._spend(len(value.list_value.values))
                return [self._value(entry) for entry in value.list_value.values]
            case "struct_value":
                return self.json_object(value.struct_value.fields)
            case "number_value":
                number = value.number_value
                return int(number) if number.is_integer() else number
            case None:
                return None
            case name:
                return getattr(value, name)

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TooLargeError(f"the request has more than {self._most} values", "")
