"""Loads mutated files of a tokenizer, as a program of its own: a library may hang or crash.

Arguments: a directory, a seed, a number of mutations. Prints how many loaded, and how many did not.
"""

from __future__ import annotations

import json
import random
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ODD: list[Any] = [None, True, 0, -1, 1.5, 2**40, "", "x", "\n", "</s>", [], [1], {}, {"type": "X"}]


def mutated(source: random.Random, value: Any, odds: float) -> Any:
    if source.random() < odds:
        return source.choice(ODD)
    if isinstance(value, dict):
        return {k: mutated(source, v, odds) for k, v in value.items() if source.random() > odds}
    if isinstance(value, list):
        return [mutated(source, each, odds) for each in value if source.random() > odds]
    return value


def torn(source: random.Random, content: bytes) -> bytes:
    """A file with a few other bytes, or only its beginning."""
    changed = bytearray(content)
    for _ in range(source.randrange(1, 5)):
        changed[source.randrange(len(changed))] = source.randrange(256)
    return bytes(changed if source.random() < 0.7 else changed[: source.randrange(len(changed))])


def main(directory: Path, seed: int, count: int) -> None:
    from support.models.trained import write_tokenizer
    from tokenization import ChatOptions, TokenizationError, TokenizerBrokenError
    from tokenization.model import load_model
    from tokenization.requests import tokenize_chat, tokenize_text

    source, file = random.Random(seed), write_tokenizer(directory)
    original, config = file.read_bytes(), directory / "tokenizer_config.json"
    options = {"chat_template": "{{ messages }}", "eos_token": {"content": "</s>"}, "x": [1]}
    ended: Counter[str] = Counter()
    for _ in range(count):
        config.write_text(json.dumps(mutated(source, options, 0.2)))
        if source.random() < 0.5:
            file.write_text(
                json.dumps(mutated(source, json.loads(original), 10 ** source.uniform(-5, -2.5)))
            )
        else:
            file.write_bytes(torn(source, original))
        try:
            model = load_model("m", file, 2**20)
        except TokenizerBrokenError:
            ended["refused"] += 1
            continue
        try:
            tokenize_text(model, "a b\n" * 9, add_special_tokens=True)
            tokenize_chat(model, {"messages": [{"role": "user", "content": "a"}]}, ChatOptions())
            ended["ids"] += 1
        except TokenizationError as error:
            ended[type(error).__name__] += 1
    print(json.dumps(ended))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
