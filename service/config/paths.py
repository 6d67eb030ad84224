"""Paths in the configuration: a path that leads nowhere is a fault, and not found out later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

_TOKENIZER = "tokenizer.json"


def _readable(path: Path) -> Path:
    if not path.is_file():
        raise ValueError("this file does not exist")
    if not os.access(path, os.R_OK):
        raise ValueError("this file cannot be read")
    return path


def _text(path: Path) -> Path:
    try:
        _readable(path).read_text()
    except UnicodeDecodeError:
        raise ValueError("this file is no text") from None
    return path


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError("this directory does not exist")
    return path


def _tokenizer(path: Path) -> Path:
    if path.is_dir() and not (path / _TOKENIZER).is_file():
        raise ValueError(f"there is no {_TOKENIZER} in this directory")
    _readable(path / _TOKENIZER if path.is_dir() else path)
    return path


def _snapshot(path: Path) -> Path:
    if path.is_dir():
        raise ValueError("must be a file, but is a directory")
    if not path.parent.is_dir():
        raise ValueError(f"there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"nothing can be written to {path.parent}")
    return path


ReadableFile = Annotated[Path, AfterValidator(_readable)]
ReadableText = Annotated[Path, AfterValidator(_text)]
ExistingDirectory = Annotated[Path, AfterValidator(_directory)]
TokenizerPath = Annotated[Path, AfterValidator(_tokenizer)]
SnapshotPath = Annotated[Path, AfterValidator(_snapshot)]
