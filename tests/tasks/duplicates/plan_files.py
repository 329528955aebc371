"""Helpers for tests of plans: rows, file contents, edits."""

from __future__ import annotations

import hashlib
from pathlib import Path

from imatlas.tasks.duplicates.plans import LOG, PlanRow


def rows_of(folder: Path) -> list[PlanRow]:
    def row(key: str, action: str, group: str) -> PlanRow:
        return PlanRow(key, action, group, "why", hashlib.sha256((folder / key).read_bytes()).hexdigest())

    return [
        row("a.jpg", "keep", "1"),
        row("sub/a copy.jpg", "move", "1"),
        row("sub/a, again.jpg", "move", "1"),
        row("b.jpg", "keep", "2"),
        row("b2.jpg", "move", "2"),
    ]


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != LOG}


def edited(plan: Path, old: str, new: str) -> Path:
    text = plan.read_text()
    assert old in text
    plan.write_text(text.replace(old, new))
    return plan


def everything(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"" for p in root.rglob("*")}
