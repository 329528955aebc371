"""Tables of benchmarks: printed, and saved as Markdown and JSON under benchmarks/results/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def save_table(
    name: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> None:
    """Print a table and save it as `results/NAME.md` and `results/NAME.json`, with the machine it ran on."""
    notes = [*notes, machine()]
    cells = [[_text(value) for value in row] for row in rows]
    lines = [f"# {title}", "", "| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    lines += ["", *[f"- {note}" for note in notes], ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")
    described = {"title": title, "columns": list(columns), "rows": [list(row) for row in rows], "notes": notes}
    (RESULTS / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))


def saved_table(name: str, title: str) -> dict[str, Any]:
    """The rows and notes of a table as an earlier run left them; none where there is none, or it has another title."""
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept if kept.get("title") == title else {"rows": [], "notes": []}


def machine() -> str:
    """One line about the hardware and the versions that the numbers depend on."""
    parts = ", ".join(f"{part} {version(part)}" for part in ("torch", "numpy", "scikit-learn"))
    return f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, {parts}."


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
