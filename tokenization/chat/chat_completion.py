"""A chat-completions request -> the text that the engine tokenizes for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tokenization.chat.messages import template_messages
from tokenization.chat.template import compile_template
from tokenization.errors import ChatError, TemplateBrokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenization.chat.content_format import ContentFormat
    from tokenization.chat.template import ChatTemplate
    from tokenization.chat.watch import RenderWatch

_TEMPLATE_PARAMETERS = frozenset(
    {"tools", "documents", "add_generation_prompt", "continue_final_message"}
)
_ENGINE_ARGUMENTS = {"cohere_format": "cmd4"}  # the engine's own; all others override them


@dataclass(frozen=True)
class ChatOptions:
    """The options of a model's engine that change how it reads chats."""

    template: str | None = None
    """A template, or the name of one of the model's, instead of the model's default."""
    content_format: ContentFormat | None = None
    """The form of a message's content; None for the one the template wants."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the template; those of a request override them."""
    efforts: Mapping[str, str] = field(default_factory=dict)
    """A request's reasoning effort -> the one that the template knows."""
    trust_request_template: bool = False
    """Whether a request may bring a template of its own."""
    exclude_tools_when_none: bool = False
    """Whether tools are left out if tool_choice is "none"."""
    max_model_len: int | None = None
    """Tokens of a prompt and its answer together; None if not known."""


@dataclass(frozen=True)
class ChatTemplates:
    """The chat templates of one model."""

    by_name: Mapping[str, str]
    """Name -> text; the name of the usual one is "default"."""
    special_tokens: Mapping[str, str]
    """Name, such as bos_token -> text. Templates read them as variables."""

    def choose(self, name: str | None, *, tools: bool) -> str:
        """Return the text of a template.

        Args:
            name: of one of the model's templates, or else the text itself; None for the default.
            tools: whether the chat has tools, which some models have a template for.

        Raises:
            TemplateBrokenError: the model has no such template.
        """
        if name is not None:
            return self.by_name.get(name, name)
        for default in (["tool_use"] if tools else []) + ["default"]:
            if default in self.by_name:
                return self.by_name[default]
        known = ", ".join(sorted(self.by_name)) or "none"
        raise TemplateBrokenError(f"the model has no chat template for this; it has: {known}")


def render_chat(
    request: Mapping[str, Any],
    templates: ChatTemplates,
    options: ChatOptions,
    watch: RenderWatch | None = None,
) -> str:
    """Return the text of a chat.

    Raises:
        ChatError: the model server would refuse the request.
        UnsupportedChatError: a message has a part that is not text.
        TemplateBrokenError: there is no template, or it does not compile.
        TemplateLimitError: the template takes too long, or makes too much text.
        CallerGoneError: nobody waits for the text any more.
    """
    tools = _tools(request, options)
    arguments = _arguments(request, options)
    if isinstance(arguments.get("tools"), list):
        tools = arguments["tools"]
    template = _template(request, arguments, templates, options, tools=tools is not None)
    continue_final = arguments.get("continue_final_message", False)
    add_prompt = arguments.get("add_generation_prompt", True)
    if not isinstance(continue_final, bool | str):
        raise ChatError("continue_final_message is neither a boolean nor a field's name")
    if continue_final and add_prompt:
        raise ChatError("continue_final_message requires add_generation_prompt to be false")
    used = template.variables - _TEMPLATE_PARAMETERS
    return template.render(
        template_messages(request.get("messages"), template, options.content_format),
        tools=tools,
        documents=arguments.get("documents"),
        add_generation_prompt=add_prompt,
        continue_final_message=continue_final,
        variables={
            **templates.special_tokens,
            **{name: value for name, value in arguments.items() if name in used},
        },
        watch=watch,
    )


def brings_template(
    request: Mapping[str, Any], templates: ChatTemplates, options: ChatOptions
) -> bool:
    """Whether a chat is rendered by a template that is neither the model's nor the engine's."""
    own = request.get("chat_template_kwargs")
    given = request.get("chat_template")
    if not given and isinstance(own, dict):
        given = own.get("chat_template")
    is_foreign = isinstance(given, str) and given != "" and given not in templates.by_name
    return options.trust_request_template and is_foreign


class TemplateChoice(NamedTuple):
    """Which template renders a chat, and what of the request it does not read."""

    name: str
    """Of one of the model's, "configured" for one in the options, "request" for a request's own."""
    unread: tuple[str, ...]
    """The request's arguments that it does not read; none are known of a request's own template."""


def chosen_template(
    request: Mapping[str, Any], templates: ChatTemplates, options: ChatOptions
) -> TemplateChoice:
    """Return which template has rendered a chat that `render_chat` accepts."""
    if brings_template(request, templates, options):
        return TemplateChoice("request", ())
    arguments, tools = _arguments(request, options), _tools(request, options) is not None
    given = request.get("chat_template") or arguments.get("chat_template") or options.template
    text = templates.choose(given, tools=tools or isinstance(arguments.get("tools"), list))
    name = next((name for name, each in templates.by_name.items() if each == text), "configured")
    known = compile_template(text).variables | _TEMPLATE_PARAMETERS | {"chat_template"}
    own = request.get("chat_template_kwargs") or {}
    return TemplateChoice(name, tuple(sorted(name for name in own if name not in known)))


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
        raise ChatError("chat_template: a request's template is not trusted here")
    if given is not None and not isinstance(given, str):
        raise ChatError("chat_template is not a string")
    return compile_template(templates.choose(given or options.template, tools=tools))


def _arguments(request: Mapping[str, Any], options: ChatOptions) -> dict[str, Any]:
    """Return the template's arguments: the options', then the request's own, then its fields."""
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
    requested = _without_unset({**own, **_without_unset(fields)})
    return {**_ENGINE_ARGUMENTS, **options.arguments, **requested}


def _without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` without None and "auto", which an engine takes for "not set"."""
    return {name: value for name, value in values.items() if value is not None and value != "auto"}


# Tools


def _tools(request: Mapping[str, Any], options: ChatOptions) -> list[dict[str, Any]] | None:
    given, choice = request.get("tools"), request.get("tool_choice")
    if given is None:
        if choice not in (None, "none"):
            raise ChatError("tool_choice is set, but there are no tools")
        return None
    if not isinstance(given, list) or not given:
        raise ChatError("tools is empty, or not a list")
    tools = [_tool(f"tools[{index}]", tool) for index, tool in enumerate(given)]
    return None if choice == "none" and options.exclude_tools_when_none else tools


def _tool(where: str, given: Any) -> dict[str, Any]:
    """Return a tool with the fields that an engine knows, in the order it knows them."""
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ChatError(f"{where} has no function with a name")
    if given.get("type", "function") != "function":
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
