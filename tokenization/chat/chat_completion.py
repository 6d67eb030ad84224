"""A chat-completions request -> the text that the engine tokenizes, as the engine would read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokenization.chat.messages import template_messages
from tokenization.chat.template import compile_template
from tokenization.errors import ChatError, TemplateBrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenization.chat.content_format import ContentFormat
    from tokenization.chat.template import ChatTemplate

_TEMPLATE_PARAMETERS = frozenset(
    {"tools", "documents", "add_generation_prompt", "continue_final_message"}
)
_COHERE = {"cohere_format": "cmd4"}  # an engine's own, under all other arguments


@dataclass(frozen=True)
class ChatOptions:
    """How the engine of a model was started, as far as chats show it.

    template: instead of the model's own. content_format: None as the template wants it.
    arguments: of the template, under those of a request. efforts: a request's reasoning effort ->
    the template's. trust_request_template: whether a request may bring one.
    exclude_tools_when_none: whether tools are left out where tool_choice is "none". most_tokens: of
    a prompt and its answer, None if not known.
    """

    template: str | None = None
    content_format: ContentFormat | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    efforts: Mapping[str, str] = field(default_factory=dict)
    trust_request_template: bool = False
    exclude_tools_when_none: bool = False
    most_tokens: int | None = None


@dataclass(frozen=True)
class ChatTemplates:
    """The templates of one model by name, "default" among them, and its special tokens by name."""

    by_name: Mapping[str, str]
    special_tokens: Mapping[str, str]

    def choose(self, name: str | None, *, tools: bool) -> str:
        """The text of a template: by its name or, if it is none's, what was given as a name.

        Raises TemplateBrokenError.
        """
        if name is not None:
            return self.by_name.get(name, name)
        for usual in (["tool_use"] if tools else []) + ["default"]:
            if usual in self.by_name:
                return self.by_name[usual]
        known = ", ".join(sorted(self.by_name)) or "none"
        raise TemplateBrokenError(f"the model has no chat template for this; there is: {known}")


def render_chat(request: Mapping[str, Any], templates: ChatTemplates, options: ChatOptions) -> str:
    """The text of a chat. Raises ChatError, UnsupportedChatError, TemplateBrokenError."""
    tools = _tools(request, options)
    arguments = _arguments(request, options)
    if isinstance(arguments.get("tools"), list):
        tools = arguments["tools"]
    template = _template(request, arguments, templates, options, tools=tools is not None)
    continues = arguments.get("continue_final_message", False)
    prompts = arguments.get("add_generation_prompt", True)
    if not isinstance(continues, bool | str):
        raise ChatError("continue_final_message is neither a boolean nor a field's name")
    if continues and prompts:
        raise ChatError("continue_final_message goes with add_generation_prompt set to false only")
    used = template.variables - _TEMPLATE_PARAMETERS
    return template.render(
        template_messages(request.get("messages"), template, options.content_format),
        tools=tools,
        documents=arguments.get("documents"),
        add_generation_prompt=prompts,
        continue_final_message=continues,
        variables={
            **templates.special_tokens,
            **{name: value for name, value in arguments.items() if name in used},
        },
    )


def _template(
    request: Mapping[str, Any],
    arguments: Mapping[str, Any],
    templates: ChatTemplates,
    options: ChatOptions,
    *,
    tools: bool,
) -> ChatTemplate:
    given = request.get("chat_template") or arguments.get("chat_template")
    if given is not None and not options.trust_request_template:
        raise ChatError("chat_template: templates of requests are not trusted here")
    if given is not None and not isinstance(given, str):
        raise ChatError("chat_template is not a string")
    return compile_template(templates.choose(given or options.template, tools=tools))


def _arguments(request: Mapping[str, Any], options: ChatOptions) -> dict[str, Any]:
    """Of the template: the server's, the request's own, then its fields."""
    own = request.get("chat_template_kwargs") or {}
    if not isinstance(own, dict):
        raise ChatError("chat_template_kwargs is not an object")
    fields: dict[str, Any] = {
        "add_generation_prompt": request.get("add_generation_prompt", True),
        "continue_final_message": request.get("continue_final_message", False),
        "documents": request.get("documents"),
    }
    effort = request.get("reasoning_effort")
    if effort is not None and not isinstance(effort, str):
        raise ChatError("reasoning_effort is not a string")
    if effort is not None:
        fields["reasoning_effort"] = options.efforts.get(effort, effort)
        if "enable_thinking" not in own:
            fields["enable_thinking"] = effort != "none"
    given = {**own, **_said(fields)}
    return {**_COHERE, **options.arguments, **_said(given)}


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what stands for nothing being said."""
    return {name: value for name, value in values.items() if value is not None and value != "auto"}


# Tools


def _tools(request: Mapping[str, Any], options: ChatOptions) -> list[dict[str, Any]] | None:
    said, choice = request.get("tools"), request.get("tool_choice")
    if said is None:
        if choice not in (None, "none"):
            raise ChatError("tool_choice is given without tools")
        return None
    if not isinstance(said, list) or not said:
        raise ChatError("tools is not a list with a tool in it")
    tools = [_tool(f"tools[{at}]", tool) for at, tool in enumerate(said)]
    return None if choice == "none" and options.exclude_tools_when_none else tools


def _tool(where: str, said: Any) -> dict[str, Any]:
    function = said.get("function") if isinstance(said, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatError(f"{where} has no function with a name")
    if said.get("type", "function") != "function":
        raise ChatError(f"{where}.type is not function")
    tool: dict[str, Any] = {
        "name": function["name"],
        "description": function.get("description"),
        "parameters": function.get("parameters"),
    }
    for name in ("strict", "defer_loading"):
        if function.get(name) is not None:
            tool[name] = function[name]
    return {"type": "function", "function": tool}
