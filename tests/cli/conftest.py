"""A small atlas for the tests of the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imatlas.cli import main
from tests.atlas.test_learn import write_patches
from tests.atlas.test_new_images import with_patches


@pytest.fixture(scope="package")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of the 60 patches in the folder 'photos' beside it."""
    root = tmp_path_factory.mktemp("cli")
    photos = write_patches(root / "photos", 60)
    assert main(["learn", str(photos), "-o", str(root / "photos.atlas"), "--budget", "3s", "--json"]) == 0
    return root / "photos.atlas"


@pytest.fixture(scope="package")
def composed(atlas: Path) -> Path:
    """The same atlas with a generator that composes images, whichever `learn` chose."""
    return with_patches(Path(shutil.copytree(atlas, atlas.with_name("composed.atlas"))))
