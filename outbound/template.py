"""Templates: jinja2 in its sandbox, of the few things that a text needs.

A source may fill in names, choose by `if` and use the filters below. Nothing in it can loop, call,
look into an object or grow beyond its data, so that one of a stranger's is only ever wrong text.
In HTML all data is escaped.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from domain.money import decimal, is_currency

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Environment, Template

SOURCE_CHARACTERS = 20_000  # of one source
RENDERED_CHARACTERS = 200_000
DEPTH = 50  # of nodes in each other
ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Filter,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
)
FILTERS = ("capitalize", "default", "escape", "lower", "title", "trim", "upper")
ARGUMENTS = {"default": (1, 2), "money": (1, 1)}  # least and most of a filter; the others take none
UNFIT = (TypeError, ValueError, ArithmeticError, LookupError)  # of an operation on its data


class BadTemplate(Exception):
    """The source is none that may be used, or its data does not fit: one sentence."""


def money(amount_minor: object, currency: object) -> str:
    """Minor units as people read them: 1050 and USD as `10.50 USD`."""
    text = str(amount_minor)
    if not is_currency(str(currency)) or not text.lstrip("-").isdecimal() or len(text) > 20:
        raise BadTemplate(f"money: {text[:20]} {str(currency)[:3]} is no amount")
    return f"{decimal(int(text), str(currency))} {currency}"


def _environment(*, html: bool) -> Environment:
    found = ImmutableSandboxedEnvironment(
        autoescape=html, undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0
    )
    found.globals.clear()
    found.filters = {name: found.filters[name] for name in FILTERS} | {"money": money}
    return found


TEXT, HTML = _environment(html=False), _environment(html=True)


def variables(source: str) -> frozenset[str]:
    """The names that a source fills in. Raises BadTemplate for one that may not be used."""
    if len(source) > SOURCE_CHARACTERS:
        raise BadTemplate(f"is longer than {SOURCE_CHARACTERS} characters")
    tree = _tree(source)
    _check(tree)  # before it is compiled, which computes what is constant
    try:
        TEXT.compile(tree)
    except TemplateError as exc:
        raise BadTemplate(f"line {getattr(exc, 'lineno', 1)}: {exc}") from exc
    except (RecursionError, SyntaxError, MemoryError) as exc:
        raise BadTemplate("is nested too deep") from exc
    except UNFIT as exc:  # what is constant is computed here
        raise BadTemplate(f"can't be computed: {exc}") from exc
    return frozenset(meta.find_undeclared_variables(tree))


def _check(tree: nodes.Template) -> None:
    found: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while found:
        node, depth = found.pop()
        if not isinstance(node, ALLOWED):
            name = type(node).__name__.lower()
            raise BadTemplate(f"line {node.lineno}: {name} has no place in a template")
        if depth > DEPTH:
            raise BadTemplate("is nested too deep")
        if isinstance(node, nodes.Filter):
            _check_arguments(node)
        found += [(child, depth + 1) for child in node.iter_child_nodes()]


def _check_arguments(node: nodes.Filter) -> None:
    least, most = ARGUMENTS.get(node.name, (0, 0))
    if node.kwargs or node.dyn_args or node.dyn_kwargs or not least <= len(node.args) <= most:
        takes = f"{least} to {most} arguments" if most else "no arguments"
        raise BadTemplate(f"line {node.lineno}: {node.name} takes {takes}")


def _tree(source: str) -> nodes.Template:
    try:
        return TEXT.parse(source)
    except TemplateError as exc:
        raise BadTemplate(f"line {getattr(exc, 'lineno', 1)}: {exc}") from exc
    except RecursionError as exc:
        raise BadTemplate("is nested too deep") from exc


@lru_cache(maxsize=500)
def _compiled(source: str, html: bool) -> Template:
    variables(source)
    return (HTML if html else TEXT).from_string(source)


def render(source: str, data: Mapping[str, str], *, html: bool = False) -> str:
    """The text. Raises BadTemplate when the source may not be used, or the data does not fit."""
    template = _compiled(source, html)
    parts, length = [], 0
    try:
        for part in template.generate(data):
            length += len(part)
            if length > RENDERED_CHARACTERS:
                raise BadTemplate(f"would be longer than {RENDERED_CHARACTERS} characters")
            parts.append(part)
    except TemplateError as exc:
        raise BadTemplate(str(exc)) from exc
    except UNFIT as exc:  # all data are texts: one compared with a number, for instance
        raise BadTemplate(f"does not fit its data: {exc}") from exc
    return "".join(parts)


def one_line(text: str) -> str:
    """A text that may stand in a header: no line break, no control character."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
