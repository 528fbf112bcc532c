"""What a script prints: tables for people, and a line of JSON."""

from __future__ import annotations

import json
from typing import Any


def read(script: str, printed: str) -> tuple[str, dict[str, Any]]:
    """The tables, and the line of JSON after them."""
    *lines, last = printed.splitlines()
    content: dict[str, Any] = json.loads(last)
    assert content["benchmark"] == script.removesuffix(".py")
    assert set(content["machine"]) == {
        "cpu", "cores", "kernels", "memory_bytes", "python", "mkl", "torch", "scipy", "numpy",
    }  # fmt: skip
    kernels = content["machine"]["kernels"]
    assert lines[-1].startswith(f"kernels of native loops: {kernels} ")
    return "\n".join(lines), content


def rows(text: str, title: str) -> dict[str, list[str]]:
    """A table by its title: the other cells by the first."""
    lines = text.splitlines()
    body = lines[[line.strip() for line in lines].index(title) :]
    end = next(number for number, line in enumerate(body) if line.startswith("└"))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in body[:end]]
    return {row[0]: row[1:] for row in cells if row}


def assert_seconds(content: dict[str, Any], names: list[str]) -> None:
    assert set(content["seconds"]) == set(names)
    for parts in content["seconds"].values():
        assert "total" in parts
        for figures in parts.values():
            assert 0 < figures["min"] <= figures["median"]
