"""bash completes commands with what `kvatlas completion bash` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import Configuration, settings_of

# What bash does when the tab key is pressed behind these words.
SCRIPT = """\
source <(kvatlas completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$(complete -p kvatlas | sed 's/.*-F \\([^ ]*\\).*/\\1/') kvatlas
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    bash = shutil.which("bash")
    assert bash is not None
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "-c", SCRIPT, "bash", *words],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["kvatlas", "he"], ["health"]),
        (["kvatlas", "pods", ""], ["forget", "resync", "unregister", "register", "discovered"]),
        (["kvatlas", "config", "s"], ["show"]),
        (["kvatlas", "score", "--mo"], ["--model"]),
        (["kvatlas", "completion", ""], ["bash", "zsh", "fish"]),
        (["kvatlas", "serve", "--bl"], ["--block-size"]),
    ],
)
def test_bash_completes_commands_and_flags(words: list[str], offered: list[str]) -> None:
    assert completed(*words) == offered


def test_bash_completes_the_flag_of_every_setting() -> None:
    flags = {setting.flag for setting in settings_of(Configuration)}
    sections = {flag.partition(".")[0] for flag in flags if "." in flag}
    found = {flag for section in sections for flag in completed("kvatlas", "serve", f"{section}.")}
    assert found == {flag for flag in flags if "." in flag}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_given_a_script(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "service", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"_KVATLAS_COMPLETE={shell}_complete" in done.stdout
    program = shutil.which(shell)
    if program is not None:
        subprocess.run([program, "-n", "/dev/stdin"], input=done.stdout, text=True, check=True)
