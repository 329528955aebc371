"""A folder of files, and a plan for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imatlas.tasks.duplicates.plans import write_plan
from tests.tasks.duplicates.plan_files import rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for key in ("a.jpg", "sub/a copy.jpg", "sub/a, again.jpg", "b.jpg", "b2.jpg"):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(key.encode() * 100)
    return folder


@pytest.fixture
def plan(folder: Path, tmp_path: Path) -> Path:
    write_plan(rows_of(folder), folder, tmp_path / "plan.csv")
    return tmp_path / "plan.csv"


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Another folder of the user, with the same files as a plan names, so that only the location stops it."""
    folder = tmp_path / "home" / "private"
    folder.mkdir(parents=True)
    for key in ("b.jpg", "b2.jpg"):
        (folder / key).write_bytes(key.encode() * 100)
    return folder
