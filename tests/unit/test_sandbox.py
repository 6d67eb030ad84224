"""What templates may not do, whatever the arguments that strangers give them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tokenization.chat import Caller, RenderLimits, RenderWatch
from tokenization.chat.template import ChatTemplate
from tokenization.errors import CallerGoneError, ChatError, TemplateBrokenError, TemplateLimitError

LIMITS = RenderLimits(seconds=60.0, text_bytes=1000)
GROWS = "{% set ns = namespace(s='ab') %}{% for i in range(40) %}"

EXPANDING = [
    "{{ 'a' * 4000000000 }}",
    "{{ 4000000000 * 'a' }}",
    "{{ [0] * 4000000000 }}",
    "{{ 9 ** 9999999 }}",
    "{{ 9.0 | int ** 9999999 }}",
    "{{ (9 ** 1000) * (9 ** 1000) * (9 ** 1000) }}",
    "{{ 'a' | center(n) }}",
    "{{ 'a' | center(width=n) }}",
    "{{ 'a'.center(n) }}{{ 'a'.ljust(n) }}",
    "{{ 'a'.zfill(n) }}",
    "{{ '\t'.expandtabs(n) }}",
    "{{ (10).to_bytes(n, 'big') }}",
    "{{ '%4000000000d' % 1 }}",
    "{{ '%*d' % (n, 1) }}",
    "{{ '%.4000000000f' % 1 }}",
    "{{ '%(a)4000000000d' % {'a': 1} }}",
    "{{ '%*d' | format(n, 1) }}",
    "{{ '{:4000000000d}'.format(1) }}",
    "{{ '{:{}}'.format(1, n) }}",
    "{{ '{a:{b}}'.format_map({'a': 1, 'b': n}) }}",
    "{{ 'a' | indent(n) }}",
    "{{ ('\n' * 100) | indent('x' * 100) }}",
    "{{ ('a' * 100) | replace('a', 'b' * 100) }}",
    "{{ ('a' * 100).replace('a', 'b' * 100) }}",
    "{{ ('a' * 100).encode().replace('a'.encode(), ('b' * 100).encode()) }}",
    "{{ ('a ' * 100) | wordwrap(1, wrapstring='b' * 100) }}",
    "{{ ('a' * 100).join('b' * 100) }}",
    "{{ (['a' * 100] * 100) | join }}",
    "{{ ('a' * 100) | join('b' * 100) }}",
    "{{ [1] | batch(n, 0) | list }}",
    "{{ [] | slice(n) | list }}",
    "{{ 5 | round(-4000000000) }}",
    "{{ [1] | tojson(indent=n) }}",
    "{{ [1] | tojson(separators=('a' * 100, 'b')) }}",
    "{{ ([1] * 900) | tojson(indent=50) }}",
    "{{ strftime_now('%04000000000Y') }}",
    GROWS + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
    GROWS + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    GROWS + "{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}",
    GROWS + "{% set ns.s = '%s%s' % (ns.s, ns.s) %}{% endfor %}",
    GROWS + "{% set ns.s = '{0}{0}'.format(ns.s) %}{% endfor %}",
    "{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{{ m(m(m(m(m(m(m(m(m(m('ab')))))))))) }}",
    "{% for i in range(999) %}{{ 'ab' }}{% endfor %}",
]
BUSY = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "{% set r = range(99) %}{% for i in r %}{% for j in r if j > 98 %}{% endfor %}{% endfor %}",
    "{% macro m() %}x{% endmacro %}{% for i in range(9999) %}{% set y = m() %}{% endfor %}",
    "{% for x in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 30 }}{% endfor %}",
]


def rendered(text: str, limits: RenderLimits = LIMITS, caller: Caller | None = None) -> str:
    message = {"role": "user", "content": "a secret that nobody may see"}
    return ChatTemplate(text).render(
        [message], variables={"n": 4_000_000_000}, watch=RenderWatch(limits, caller)
    )


@pytest.mark.parametrize("text", EXPANDING)
def test_an_operation_that_makes_a_large_value_is_refused_before_it_begins(text: str) -> None:
    with pytest.raises(TemplateLimitError, match=r"^the chat template .{,120}$"):
        rendered(text)


@pytest.mark.parametrize("text", BUSY)
def test_a_template_ends_after_the_steps_that_a_text_of_the_limit_may_take(text: str) -> None:
    with pytest.raises(TemplateLimitError, match="more work than a text of 1000 bytes"):
        rendered(text)


def test_a_template_ends_when_its_time_is_over() -> None:
    with pytest.raises(TemplateLimitError, match="took longer than 0 s"):
        rendered(BUSY[0], RenderLimits(seconds=0.0))


@pytest.mark.parametrize("text", BUSY)
def test_a_template_ends_when_its_caller_has_gone(text: str) -> None:
    late, gone = Caller(deadline=time.monotonic()), Caller(is_gone=True)
    for caller in (late, gone):
        with pytest.raises(CallerGoneError):
            rendered(text, caller=caller)


def test_a_text_of_the_limit_is_rendered_and_a_longer_one_is_not() -> None:
    assert rendered("{{ 'ä' * 500 }}") == "ä" * 500
    for text in ("{{ 'ä' * 501 }}", "x" * 1001):
        with pytest.raises(TemplateLimitError, match="longer than 1000 bytes"):
            rendered(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ 2 ** 10 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 7 / 2 }} {{ 2 - 1 }}", "1024 3 3 3.5 1"),
        ("{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 'a' + 'b' ~ 1 ~ none }}", "abab[1, 2]ab1None"),
        ("{{ '%s-%05d%%' % ('a', 7) }} {{ '%(x)s' % {'x': 1} }}", "a-00007% 1"),
        ("{{ '{:>4}|{a}'.format(1, a=2) }} {{ '{a}'.format_map({'a': 3}) }}", "   1|2 3"),
        ("{{ 'a\nb' | indent(2) }} {{ 'a' | center(3) }}|", "a\n  b  a |"),
        ("{{ [1, 'b'] | join('-') }} {{ [{'a': 1}] | join(attribute='a') }}", "1-b 1"),
        ("{{ 'aXa' | replace('a', 'bb', 1) }} {{ 'aXa'.replace('a', '') }}", "bbXa X"),
        ("{{ [1, 2, 3] | batch(2, 0) | list }} {{ 2.345 | round(1) }}", "[[1, 2], [3, 0]] 2.3"),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}", None),
        (
            "{% for i in [1, 2] %}{{ loop.index }}/{{ loop.length }}{{ loop.last }} {% endfor %}",
            None,
        ),
        ("{% for i in nothing %}x{% else %}none{% endfor %}", "none"),
        ("{% autoescape true %}{{ '<' ~ 'b' }}{% endautoescape %}", "&lt;b"),
    ],
)
def test_what_is_small_is_computed_as_ever(text: str, expected: str | None) -> None:
    if expected is None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        expected = _compile_jinja_template(text).render()
    assert rendered(text) == expected


@pytest.mark.parametrize("text", ["{% for %}", "{{ " + "(" * 5000, "{% if 1 %}" * 3000])
def test_a_template_that_does_not_compile_is_broken_and_no_accident(text: str) -> None:
    with pytest.raises(TemplateBrokenError) as raised:
        ChatTemplate(text)
    assert len(str(raised.value)) < 250


def loops(depth: int) -> str:
    return "{% for i in [1] %}" * depth + "x" + "{% endfor %}" * depth


def test_more_loops_than_python_can_nest_are_no_accident() -> None:
    assert rendered(loops(5)) == "x"
    with pytest.raises(TemplateBrokenError):
        ChatTemplate(loops(60))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ raise_exception('no ' + messages[0].content) }}", "no ..."),
        ("{{ raise_exception('x' * 900) }}", "x" * 200),
        ("{{ {}[messages[0].content].y }}", "'dict object' has no attribute '..."),
        ("{{ messages[0].content | tojson | int + 'a' }}", "unsupported operand type"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '{:q}'.format(messages[0].content) }}", "ValueError"),
    ],
)
def test_the_reason_of_a_failure_is_short_and_quotes_no_message(text: str, reason: str) -> None:
    with pytest.raises(ChatError) as raised:
        rendered(text)
    message: Any = str(raised.value)
    assert reason in message
    assert len(message) < 250
    assert "secret" not in message
