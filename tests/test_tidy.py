"""The house rules that a linter does not know, held by reading the code itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "domain",
    "topics",
    "schemas",
    "streaming",
    "resilience",
    "outbound",
    "stores",
    "agents",
    "gateway",
    "proof",
    "travel",
    "deploy",
    "rendering",
    "banking",
    "reports",
    "command_line",
)
OURS = {*PACKAGES, "settings", "logs", "pipeline"}

# who may import whom: data goes one way
ALLOWED: dict[str, set[str]] = {
    "domain": set(),
    "streaming": set(),
    "resilience": set(),
    "outbound": {"domain"},
    "topics": {"domain", "schemas", "settings"},
    "schemas": {"domain", "streaming", "topics"},
    "stores": {"domain", "resilience", "settings"},
    "agents": {
        "domain",
        "topics",
        "schemas",
        "streaming",
        "resilience",
        "outbound",
        "stores",
        "settings",
        "logs",
    },
    "proof": {"domain", "topics", "schemas", "streaming", "settings", "agents", "stores", "logs"},
    "travel": {
        "domain",
        "topics",
        "schemas",
        "streaming",
        "settings",
        "agents",
        "proof",
        "rendering",
        "stores",
        "logs",
    },
    "gateway": {
        "banking",
        "domain",
        "rendering",
        "reports",
        "travel",
        "topics",
        "schemas",
        "streaming",
        "resilience",
        "outbound",
        "stores",
        "settings",
        "logs",
    },
    "reports": {
        "agents",
        "domain",
        "proof",
        "resilience",
        "settings",
        "streaming",
        "topics",
        "travel",
    },
    "deploy": {"settings"},
    "rendering": set(),
    "banking": set(),
    "command_line": OURS - {"deploy"},
}
PIPELINE = ALLOWED["agents"] | {"agents", "reports", "command_line"}
PURE_STDLIB = {
    "base64",
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "math",
    "re",
    "typing",
    "operator",
    "datetime",
    "heapq",
}
PURE_LIBRARIES = {"cronsim", "iso4217"}
IMPURE_CALLS = re.compile(
    r"\b(time\.time|datetime\.now|utcnow|uuid4|uuid1|random\.|os\.environ|open)\("
)


def modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ast.parse(path.read_text(), str(path))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in modules(package)
        for name in imports(tree)
        if name in OURS and name != package and name not in ALLOWED[package]
    ]
    assert not wrong


def test_the_page_of_what_runs_imports_what_runs() -> None:
    tree = ast.parse((ROOT / "pipeline.py").read_text())
    assert not {name for name in imports(tree) if name in OURS} - PIPELINE


def test_the_domain_is_pure() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, tree in modules("domain")
        for name in imports(tree)
        if name not in PURE_STDLIB | PURE_LIBRARIES | {"domain"}
    ]
    wrong += [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, _ in modules("domain")
        for match in IMPURE_CALLS.finditer(path.read_text())
    ]
    assert not wrong


def test_no_float_near_money() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in modules("domain")
        for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]
    assert not wrong


def swallows(handler: ast.ExceptHandler) -> bool:
    """True for a handler of everything that does not raise."""
    names = [handler.type] if not isinstance(handler.type, ast.Tuple) else handler.type.elts
    broad = handler.type is None or any(
        isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in names
    )
    return broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


# a handler of everything that does not raise, and why it may
KEEPS_ALL = {
    "streaming": "an agent's failure is handed to its transaction, a thread's to its waiter",
}


@pytest.mark.parametrize("package", [p for p in PACKAGES if p not in KEEPS_ALL])
def test_no_exception_is_swallowed(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in modules(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_fit_a_screen(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"
        for path, tree in modules(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 80
    ]
    assert not wrong


def test_names_say_what_they_hold() -> None:
    banned = {"utils.py", "util.py", "helpers.py", "common.py", "base.py", "manager.py", "misc.py"}
    wrong = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.name in banned
    ]
    assert not wrong


def test_every_module_opens_with_what_it_is() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path, tree in modules(package)
        if tree.body and not ast.get_docstring(tree)
    ]
    assert not wrong
