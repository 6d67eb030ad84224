"""Renders chats with templates of strangers, in a process of its own; `pool` starts it.

It reads a line of JSON for each chat and answers with another. Before the first chat it takes
from itself what a template that leaves the sandbox could use: memory beyond a limit, files,
sockets, processes. Its environment is empty, and it ends when its standard input does.

Arguments: bytes of memory for a chat.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LARGE_CHAT = 256 * 1024  # bytes; the template may be most of it, and is not kept compiled
_KEPT_TEMPLATES = 16
_OUT_OF_MEMORY, _REFUSED, _UNSUPPORTED = "memory", "refused", "unsupported"
_SPARE_SECONDS = 0.2  # to read a chat, and for the template to be stopped between two steps


def main() -> None:
    """Answer until there are no more questions."""
    _use_chats_alone()
    for _ in answers([_WARM_UP, _WARM_UP_FAILING]):
        pass  # so that everything is imported before files can no longer be opened
    _limit(int(sys.argv[1]))
    _put({})
    for answer in answers(iter(sys.stdin.buffer.readline, b"")):
        _put(answer)
        if answer.get("error") == _OUT_OF_MEMORY:
            return  # what it has kept may be the reason; the next chat gets a new process


def _use_chats_alone() -> None:
    """Let `tokenization.chat` be imported without its siblings, which load whole tokenizers."""
    package = ModuleType("tokenization")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["tokenization"] = package


def _limit(memory: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for what, limit in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_DATA, used + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 3),  # the standard streams
    ):
        resource.setrlimit(what, (limit, limit))


def _put(answer: dict[str, Any]) -> None:
    line = json.dumps(answer, ensure_ascii=False).encode(errors="surrogatepass")
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def answers(questions: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the answer to each line: {"text": ...}, or {"error": its kind, "detail": ...}."""
    from tokenization.errors import TokenizationError, UnsupportedChatError

    for line in questions:
        try:
            yield {"text": _rendered(line)}
        except MemoryError:
            yield {"error": _OUT_OF_MEMORY, "detail": ""}
        except TokenizationError as error:
            is_unsupported = isinstance(error, UnsupportedChatError)
            yield {"error": _UNSUPPORTED if is_unsupported else _REFUSED, "detail": str(error)}


def _rendered(line: bytes) -> str:
    from tokenization.chat import ChatOptions, ChatTemplates, RenderLimits, RenderWatch, render_chat
    from tokenization.chat.template import compile_template

    question = json.loads(line.decode(errors="surrogatepass"))
    limits = RenderLimits(**question["limits"])
    # Of the processor's time, after which the kernel ends the process, whatever it does.
    signal.setitimer(signal.ITIMER_PROF, limits.seconds + _SPARE_SECONDS)
    watch = RenderWatch(limits)
    watch.measure()
    try:
        return render_chat(
            question["request"],
            ChatTemplates(**question["templates"]),
            ChatOptions(**question["options"]),
            watch,
        )
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if len(line) > _LARGE_CHAT or compile_template.cache_info().currsize > _KEPT_TEMPLATES:
            compile_template.cache_clear()


def _question(template: str) -> bytes:
    question = {
        "request": {
            "messages": [{"role": "user", "content": "a"}],
            "chat_template": template,
        },
        "templates": {"by_name": {}, "special_tokens": {}},
        "options": {"trust_request_template": True},
        "limits": {"seconds": 10.0, "text_bytes": 1000},
    }
    return json.dumps(question).encode()


_WARM_UP = _question(
    "{{ strftime_now('%B %Z') }}{{ messages | tojson(indent=1) }}{{ '%s' % 1 }}{{ '{}'.format(1) }}"
)
_WARM_UP_FAILING = _question("{% macro m() %}{{ raise_exception('x') }}{% endmacro %}{{ m() }}")

if __name__ == "__main__":
    main()
