"""What tests of images share."""

from __future__ import annotations

import pytest

from imatlas.images import intake


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the items that are read, as they are read."""
    seen: list[str] = []
    original = intake.read_item

    def spy(source, item, plan, known):
        seen.append(source.keys[item])
        return original(source, item, plan, known)

    monkeypatch.setattr(intake, "read_item", spy)
    return seen
