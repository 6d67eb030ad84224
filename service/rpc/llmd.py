"""The tokenizer service of llm-d-kv-cache: its requests -> ours, our answers -> its.

As there, what goes wrong with a request is said in the answer.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from kvatlas.compat import tokenization_pb2 as compat
from kvatlas.compat import tokenization_pb2_grpc

from service.rpc.errors import KNOWN_ERRORS, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from service.rpc.prompts import PromptReader

    Context = Any  # of gRPC, which is not looked at

_Answer = TypeVar(
    "_Answer",
    compat.TokenizeResponse,
    compat.ChatTemplateResponse,
    compat.InitializeTokenizerResponse,
    compat.RenderChatCompletionResponse,
    compat.RenderCompletionResponse,
)


class LlmdTokenizationServicer(tokenization_pb2_grpc.TokenizationServiceServicer):
    """Answers `tokenization.TokenizationService`."""

    def __init__(self, prompts: PromptReader) -> None:
        self._prompts = prompts

    async def Tokenize(  # noqa: N802
        self, request: compat.TokenizeRequest, context: Context
    ) -> compat.TokenizeResponse:
        """See tokenization.proto."""

        async def answer() -> compat.TokenizeResponse:
            ids, offsets = await self._prompts.offsets(
                _model(request), request.input, add_special_tokens=request.add_special_tokens
            )
            return compat.TokenizeResponse(input_ids=ids, offset_pairs=offsets, success=True)

        return await _or_error(answer(), compat.TokenizeResponse)

    async def RenderChatTemplate(  # noqa: N802
        self, request: compat.ChatTemplateRequest, context: Context
    ) -> compat.ChatTemplateResponse:
        """See tokenization.proto."""

        async def answer() -> compat.ChatTemplateResponse:
            tokenized = await self._prompts.chat(_model(request), _older_chat(request))
            return compat.ChatTemplateResponse(rendered_prompt=tokenized.text, success=True)

        return await _or_error(answer(), compat.ChatTemplateResponse)

    async def InitializeTokenizer(  # noqa: N802
        self, request: compat.InitializeTokenizerRequest, context: Context
    ) -> compat.InitializeTokenizerResponse:
        """See tokenization.proto."""

        async def answer() -> compat.InitializeTokenizerResponse:
            await self._prompts.load(_model(request))
            return compat.InitializeTokenizerResponse(success=True)

        return await _or_error(answer(), compat.InitializeTokenizerResponse)

    async def RenderChatCompletion(  # noqa: N802
        self, request: compat.RenderChatCompletionRequest, context: Context
    ) -> compat.RenderChatCompletionResponse:
        """See tokenization.proto."""

        async def answer() -> compat.RenderChatCompletionResponse:
            tokenized = await self._prompts.chat(_model(request), self._chat(request))
            return compat.RenderChatCompletionResponse(
                request_id=_new_id(), token_ids=tokenized.ids, success=True
            )

        return await _or_error(answer(), compat.RenderChatCompletionResponse)

    async def RenderCompletion(  # noqa: N802
        self, request: compat.RenderCompletionRequest, context: Context
    ) -> compat.RenderCompletionResponse:
        """See tokenization.proto."""

        async def answer() -> compat.RenderCompletionResponse:
            tokenized = await self._prompts.completion(_model(request), {"prompt": request.prompt})
            return compat.RenderCompletionResponse(
                request_id=_new_id(), token_ids=tokenized.ids, success=True
            )

        return await _or_error(answer(), compat.RenderCompletionResponse)

    def _chat(self, request: compat.RenderChatCompletionRequest) -> dict[str, Any]:
        """The body of a chat-completions request."""
        body: dict[str, Any] = {"messages": [_message(said) for said in request.messages]}
        if request.HasField("tools_json"):
            body["tools"] = _json("tools_json", request.tools_json)
        if request.HasField("chat_template_kwargs"):
            said = self._prompts.body("chat_template_kwargs", request.chat_template_kwargs)
            body["chat_template_kwargs"] = said
        if request.HasField("add_generation_prompt"):
            body["add_generation_prompt"] = request.add_generation_prompt
        return {**body, **_of_template(request)}


async def _or_error(answer: Awaitable[_Answer], kind: type[_Answer]) -> _Answer:
    try:
        return await answer
    except KNOWN_ERRORS as error:
        return kind(success=False, error_message=str(error))


def _model(request: Any) -> str:
    if not request.model_name:
        raise InvalidRequestError("model_name is not set")
    name: str = request.model_name
    return name


def _new_id() -> str:
    return uuid.uuid4().hex


def _of_template(
    request: compat.RenderChatCompletionRequest | compat.ChatTemplateRequest,
) -> dict[str, Any]:
    said: dict[str, Any] = {"continue_final_message": request.continue_final_message}
    if request.chat_template:
        said["chat_template"] = request.chat_template
    return said


def _message(said: compat.ChatMessage) -> dict[str, Any]:
    message: dict[str, Any] = {"role": said.role}
    if said.content_parts:
        message["content"] = [_part(part) for part in said.content_parts]
    elif said.HasField("content"):
        message["content"] = said.content
    if said.HasField("tool_calls_json"):
        message["tool_calls"] = _json("tool_calls_json", said.tool_calls_json)
    return message


def _part(part: compat.ContentPart) -> dict[str, Any]:
    found: dict[str, Any] = {"type": part.type}
    if part.HasField("text"):
        found["text"] = part.text
    if part.HasField("image_url"):
        found["image_url"] = {"url": part.image_url.url}
    return found


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{where} is not JSON: {error}") from error


# The older form of a chat


def _older_chat(request: compat.ChatTemplateRequest) -> dict[str, Any]:
    if len(request.conversation_turns) != 1:
        raise InvalidRequestError("conversation_turns is not one conversation: ask for each")
    (turn,) = request.conversation_turns
    body = {
        "messages": [_message(said) for said in turn.messages],
        "add_generation_prompt": request.add_generation_prompt,
        "chat_template_kwargs": _fields(request.chat_template_kwargs),
        **_of_template(request),
    }
    if request.tools:
        body["tools"] = [_fields(tool.tool) for tool in request.tools]
    if request.documents:
        body["documents"] = [_fields(document.document) for document in request.documents]
    return body


def _fields(fields: Mapping[str, compat.Value]) -> dict[str, Any]:
    return {name: _value(fields[name]) for name in sorted(fields)}  # a map has no order


def _value(said: compat.Value) -> Any:
    match said.WhichOneof("value"):
        case "list_value":
            return [_value(each) for each in said.list_value.values]
        case "struct_value":
            return _fields(said.struct_value.fields)
        case "number_value":
            number = said.number_value
            return int(number) if number.is_integer() else number
        case None:
            return None
        case name:
            return getattr(said, name)
