"""docs/agent-security.md names a test for each statement: each of them is there, and no statement is without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "agent-security.md").read_text(encoding="utf-8")
NAMED = sorted(
    set(re.findall(r"`((?:agent|apps|tests)/[\w/]+\.py(?:::\w+)?)`", PAGE)) - {"tests/test_agent_security_page.py"}
)
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| statement", "| ---"))]


@pytest.mark.parametrize("named", NAMED)
def test_named_test_exists(named: str) -> None:
    path, _, function = named.partition("::")
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in names if function else any(name.startswith("test_") for name in names)


@pytest.mark.parametrize("row", ROWS)
def test_statement_names_its_proof(row: str) -> None:
    statement, enforced, proof = (cell.strip() for cell in row.strip("|").split("|"))
    assert statement
    assert enforced
    assert re.search(r"\.py", proof), statement
