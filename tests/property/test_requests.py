"""Whatever is sent as a request becomes token ids or a plain refusal, never an accident."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.models.trained import write_tokenizer

from tokenization import ChatOptions, TokenizationError
from tokenization.model import Model, load_model
from tokenization.requests import tokenize_chat, tokenize_completion, tokenize_messages

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.reasoning_content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
    "{% endfor %}{% endfor %}{{ tools | tojson }}{{ documents }}{{ enable_thinking }}"
)
SECRET = "nobody may see this text"
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = {
    "messages": [
        {"role": "system", "content": SECRET},
        {"role": "user", "content": [{"type": "text", "text": "b"}], "name": "n"},
        {"role": "assistant", "content": SECRET, "reasoning": "r", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "t"},
        {"role": "assistant", "content": "so"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}],
    "tool_choice": "auto",
    "documents": [{"a": "b"}],
    "chat_template_kwargs": {"enable_thinking": True, "x": 1},
    "reasoning_effort": "low",
    "add_generation_prompt": False,
    "continue_final_message": True,
    "truncate_prompt_tokens": 5,
    "truncation_side": "left",
    "kv_transfer_params": {"prompt_token_ids": [1, 2]},
    "echo": True,
    "add_special_tokens": True,
}
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "z"}]}
MESSAGES = {
    "system": SECRET,
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "b"}, RESULT]},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}],
        },
    ],
    "tools": [{"name": "f", "input_schema": {}}],
    "tool_choice": {"type": "any"},
    "thinking": {"type": "disabled"},
    "output_config": {"effort": "low"},
    "kv_transfer_params": {},
}
COMPLETION = {"prompt": SECRET, "suffix": "", "truncate_prompt_tokens": 3}
ODD: list[Any] = [
    *("x" * 5000, "9" * 5000, ["y"] * 1000, {"type": "x" * 5000}),
    *(None, True, 0, -1, 1.5, "", "x", "none", 2**70, "\ud800"),
    *([], [1], [[]], ["a"], [None], [{}], {}, {"a": 1}),
]
KINDS: list[tuple[Callable[[Model, Any, ChatOptions], object], dict[str, Any]]] = [
    (tokenize_chat, CHAT),
    (tokenize_messages, MESSAGES),
    (tokenize_completion, COMPLETION),
]


def mutated(source: random.Random, value: Any) -> Any:
    if source.random() < 0.06:
        return source.choice(ODD)
    if isinstance(value, dict):
        kept = {name: mutated(source, v) for name, v in value.items() if source.random() > 0.04}
        if source.random() < 0.02:
            kept[source.choice(["text", "content", "type", "name", "role"])] = source.choice(ODD)
        return kept
    if isinstance(value, list):
        return [mutated(source, each) for each in value if source.random() > 0.03]
    return value


def fuzz(directory: Path, seed: int, count: int) -> Counter[str]:
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    model = load_model("m", write_tokenizer(directory), 2**20)
    source = random.Random(seed)
    ended: Counter[str] = Counter()
    for _ in range(count):
        tokenize, whole = source.choice(KINDS)
        body = json.loads(json.dumps(mutated(source, whole)))
        if not isinstance(body, dict):
            continue
        try:
            tokenize(model, body, ChatOptions())
        except TokenizationError as error:
            ended[type(error).__name__] += 1
            assert len(str(error)) < 510
            assert SECRET not in str(error)
        else:
            ended["ids"] += 1
    return ended


def test_every_request_becomes_token_ids_or_is_refused_as_malformed(tmp_path: Path) -> None:
    ended = fuzz(tmp_path, 1, 6000)
    assert ended["ids"] > 500
    assert ended["ChatError"] > 500
    assert not ended["TokenizerBrokenError"]


@pytest.mark.soak
def test_every_one_of_many_requests_becomes_token_ids_or_is_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 2, 500_000)
