"""Whatever a template tries, it sees nothing of Python's internals."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from tokenization import ChatError
from tokenization.chat import RenderLimits, RenderWatch
from tokenization.chat.template import ChatTemplate
from tokenization.errors import TemplateBrokenError, TemplateLimitError

SEEN = re.compile(r"<module|<frame|<code object|'__builtins__':|<slot wrapper|PWNED|root:x:0")
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'].__base__.__subclasses__() }}",
    "{{ ''|attr('__class__')|attr('mro') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ '{0.__class__.__mro__}'.format(1) }}",
    "{{ '{0.__class__.__mro__}'|format(1) }}",
    "{{ '{a.__init__.__globals__}'.format_map({'a': cycler}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(1) }}",
    "{{ ['{0.__class__.__init__}']|map('format', 1)|list }}",
    "{{ [1]|map(attribute='__class__')|list }}",
    "{{ [1]|map(attribute='real.__class__.__mro__')|list }}",
    "{{ [[1]]|sum(attribute='__class__') }}",
    "{{ [1]|groupby('__class__') }}",
    "{{ self.__init__.__globals__ }}{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('echo PWNED').read() }}",
    "{{ joiner.__init__.__globals__.__builtins__ }}",
    "{{ namespace.__init__.__globals__.os }}",
    "{{ dict.__base__ }}{{ dict.mro() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__.datetime }}{{ strftime_now.__code__ }}",
    "{{ raise_exception.__wrapped__ }}{{ ''.format.__wrapped__ }}{{ ''.format.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}{{ m.__init__.__globals__ }}",
    "{% for i in [1] %}{{ loop._iterator.gi_frame.f_globals }}{{ loop.__init__ }}{% endfor %}",
    "{{ messages|select('string')|attr('gi_frame') }}{{ (messages|select).gi_code }}",
    "{{ (messages|map(attribute='x')).gi_frame.f_back }}",
    "{% for i in messages|select %}{{ i }}{% endfor %}{{ (messages|reverse).__reduce__() }}",
    "{{ range.__globals__ }}{{ range(1).__class__ }}",
    "{{ undefined_name.__init__.__globals__ }}{{ undefined_name._undefined_exception }}",
    "{{ messages.append(1) }}{{ messages[0].update({'content': 'PWNED'}) }}{{ messages }}",
    "{{ messages[0].clear() }}{{ messages.pop() }}{{ messages.__setitem__(0, 1) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{% from '/etc/passwd' import a %}",
    "{{ [] | counted }}{{ (1).from_bytes.__self__.__base__ }}",
    "{{ context }}{{ environment }}{{ resolve }}{{ __builtins__ }}",
]
ROOTS = [
    *("''", "1", "1.5", "[]", "{}", "messages", "messages[0]", "cycler", "joiner", "namespace()"),
    *("dict", "range", "range(2)", "self", "raise_exception", "strftime_now", "m", "nothing"),
    *("(messages|map(attribute='role'))", "(messages|select)", "''.format", "[].append", "loop"),
    *("cycler(1)", "joiner(',')", "messages.index", "caller", "true", "none", "().count"),
]
NAMES = [
    *("__class__", "__base__", "__mro__", "mro", "__subclasses__", "__init__", "__globals__"),
    *("__builtins__", "__code__", "__self__", "__func__", "__dict__", "__wrapped__", "_func"),
    *("gi_frame", "gi_code", "f_globals", "f_back", "f_locals", "__reduce__", "__getattribute__"),
    *("_environment", "_context", "environment", "format", "format_map", "real", "content", "os"),
    *("_iterator", "__call__", "__import__", "__doc__", "__module__", "keys", "items", "copy"),
]


def chain(source: random.Random) -> str:
    """An expression that goes from one object to others."""
    text = source.choice(ROOTS)
    for _ in range(source.randrange(1, 6)):
        name = source.choice(NAMES)
        text = source.choice(
            [
                f"{text}.{name}",
                f"{text}['{name}']",
                f"({text}|attr('{name}'))",
                f"{text}.{name}()",
                f"'{{0.{name}}}'.format({text})",
                f"'{{a[{name}]}}'.format_map({{'a': {text}}})",
                f"([{text}]|map(attribute='{name}')|list)",
                f"({text}|first)",
                f"{text}[0]",
                f"({text} ~ '')",
            ]
        )
    return text


def outcome(template: str) -> str:
    message = {"role": "user", "content": "hi"}
    limits = RenderLimits(seconds=60.0, text_bytes=10_000)
    try:
        text = ChatTemplate(template).render([message], watch=RenderWatch(limits))
    except (ChatError, TemplateBrokenError, TemplateLimitError) as error:
        text, kind = str(error), type(error).__name__
    else:
        kind = "text"
    assert not SEEN.search(text), (template, text)
    assert message == {"role": "user", "content": "hi"}
    return kind


def outcomes(seed: int, count: int) -> Counter[str]:
    source = random.Random(seed)
    macro = "{% macro m() %}x{% endmacro %}{% for i in [1] %}"
    return Counter(outcome(f"{macro}{{{{ {chain(source)} }}}}{{% endfor %}}") for _ in range(count))


@pytest.mark.parametrize("template", ESCAPES)
def test_a_known_way_out_of_the_sandbox_leads_nowhere(template: str) -> None:
    outcome(template)


def test_no_chain_of_attributes_leads_out_of_the_sandbox() -> None:
    found = outcomes(1, 1500)
    assert found["text"] > 200
    assert found["ChatError"] > 200


@pytest.mark.soak
def test_none_of_many_chains_leads_out_of_the_sandbox() -> None:
    outcomes(2, 200_000)
