"""Templates: what they may say, what they make of data, and what strangers try with them."""

from __future__ import annotations

import pytest

from domain.notification_texts import BUILT_IN
from outbound.template import (
    RENDERED_CHARACTERS,
    SOURCE_CHARACTERS,
    BadTemplate,
    one_line,
    render,
    variables,
)


@pytest.mark.parametrize(
    ("source", "data", "text"),
    [
        ("Dear {{ name }}", {"name": "<Ada>"}, "Dear <Ada>"),
        ("{{ minor | money(currency) }}", {"minor": "1050", "currency": "USD"}, "10.50 USD"),
        ("{{ minor | money('JPY') }}", {"minor": "-1050"}, "-1050 JPY"),
        ("{% if a == 'x' and not b %}yes{% else %}no{% endif %}", {"a": "x", "b": ""}, "yes"),
        ("{{ a | default('nobody') | upper }}", {}, "NOBODY"),
        ("{{ 'x' if a else 'y' }}", {"a": ""}, "y"),
        ("{% raw %}{{ a }}{% endraw %}", {}, "{{ a }}"),
    ],
)
def test_what_a_text_becomes(source: str, data: dict[str, str], text: str) -> None:
    assert render(source, data) == text


def test_data_is_escaped_in_html_and_is_never_a_template_itself() -> None:
    assert render("<b>{{ a }}</b>", {"a": "<i>&"}, html=True) == "<b>&lt;i&gt;&amp;</b>"
    assert render("{{ a }}", {"a": "{{ b }}{% for %}"}) == "{{ b }}{% for %}"


def test_the_names_that_are_filled_in() -> None:
    assert variables("{{ a }}{% if b %}{{ c | money(d) }}{% endif %}") == {"a", "b", "c", "d"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_banks_own_texts_say_truly_what_they_need(name: str) -> None:
    own = BUILT_IN[name]
    used = variables(own.subject) | variables(own.text) | variables(own.html)
    assert used <= set(own.variables)
    data = dict.fromkeys(own.variables, "x") | {"amount_minor": "1050", "currency": "EUR"}
    assert render(own.text, data)


HOSTILE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ 'a' * 1000000000 }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 10 ** 10 ** 10 }}",
    "{% for i in 'aaaa' %}{{ i }}{% endfor %}",
    "{% set a = 'x' %}",
    "{% macro a() %}{% endmacro %}",
    "{% include 'passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% block a %}{% endblock %}",
    "{% call a() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{{ range(9) }}",
    "{{ a.b }}",
    "{{ a ~ b }}",
    "{{ [1] }}",
    "{{ {1: 2} }}",
    "{{ a | attr('b') }}",
    "{{ a | safe }}",
    "{{ a | upper(1) }}",
    "{{ a | trim(1) }}",
    "{{ a | money }}",
    "{{ a | default(1, 2, 3) }}",
    "{{ a | default(*b) }}",
    "{{ a is defined }}",
    "{{ a",
    "{% if a %}",
    "{{" + "(" * 3_000 + "x" + ")" * 3_000 + "}}",
    "{{ x" + "|upper" * 3_000 + " }}",
    "{{ " + "not " * 3_000 + "x }}",
    "{{ " + " and ".join("x" * 3_000) + " }}",
    "{% if a %}" * 800 + "{% endif %}" * 800,
    "x" * (SOURCE_CHARACTERS + 1),
]


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:30])
def test_what_could_do_more_than_fill_in_is_refused(source: str) -> None:
    with pytest.raises(BadTemplate):
        variables(source)
    with pytest.raises(BadTemplate):
        render(source, {"a": "x", "b": "y", "x": "z"})


@pytest.mark.parametrize(
    ("source", "data"),
    [
        ("{{ a }}", {}),
        ("{{ a | money('USD') }}", {"a": "ten"}),
        ("{{ a | money('XXX') }}", {"a": "10"}),
        ("{% if a > 1000 %}much{% endif %}", {"a": "2000"}),
        ("{{ 1 in a }}", {"a": "1"}),
        ("{{ a }}" * 200, {"a": "x" * (RENDERED_CHARACTERS // 100)}),
    ],
)
def test_data_that_does_not_fit(source: str, data: dict[str, str]) -> None:
    with pytest.raises(BadTemplate):
        render(source, data)


def test_a_header_holds_one_line() -> None:
    assert one_line("Hi\r\nBcc: eve@example.org\x00\t!") == "Hi Bcc: eve@example.org !"
