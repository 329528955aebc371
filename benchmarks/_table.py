"""Result tables: printed, and saved as Markdown and JSON under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"


def save_table(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> None:
    """Print a table and save it as `results/NAME.md` and `results/NAME.json`; the last note names the machine."""
    notes = [*notes, machine()]
    cells = [[_text(value) for value in row] for row in rows]
    lines = [f"# {title}", "", "| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    lines += ["", *[f"- {note}" for note in notes], ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    table = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "notes": notes}
    (RESULTS / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


def saved_table(name: str, title: str) -> dict[str, Any]:
    """Rows and notes of the table saved by an earlier run; empty if there is none or its title differs."""
    path = RESULTS / f"{name}.json"
    table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return table if table.get("title") == title else {"rows": [], "notes": []}


def machine() -> str:
    """Hardware and versions in one line."""
    parts = ", ".join(f"{part} {version(part)}" for part in ("torch", "numpy", "scikit-learn"))
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {parts}."


def mean_std(values: Sequence[float], digits: int = 3) -> str:
    """Mean ± standard deviation."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
