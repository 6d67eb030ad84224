"""A tokenizer that transformers build anew is written as an engine would run it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from support.models.fetched import model_files

from service.cli.main import main
from tokenization.model import load_model

WORDS = [
    " ",
    "  ",
    "\n",
    "a",
    " the",
    "Once",
    "<s>",
    "</s>",
    "1",
    "é",
    "東京",
    "▁",
    "👍",
    "\t",
    "x.",
]


def test_a_resolved_tokenizer_has_the_engines_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, target = model_files("llama2"), tmp_path / "resolved"
    assert main(["resolve-tokenizer", str(files), str(target)]) == 0
    assert "tokenizer.json" in capsys.readouterr().out
    reference: Any = transformers.AutoTokenizer.from_pretrained(str(files))
    raw = tokenizers.Tokenizer.from_file(str(files / "tokenizer.json"))
    model = load_model("m", target / "tokenizer.json", 2**20)
    source, differ = random.Random(1), 0
    for _ in range(300):
        text = "".join(source.choices(WORDS, k=source.randrange(1, 12)))
        for special in (True, False):
            expected = reference.encode(text, add_special_tokens=special)
            found = model.encode(text, add_special_tokens=special).tolist()
            assert found == expected, text
        differ += raw.encode(text).ids != reference.encode(text)
    assert differ > 10  # else there was nothing to resolve


def test_a_model_that_cannot_be_resolved_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resolve-tokenizer", str(tmp_path / "nothing"), str(tmp_path / "t")]) == 1
    assert "nothing" in capsys.readouterr().err
