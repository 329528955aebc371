"""Fixtures of the tests of segmentation."""

import pytest

from tests.models.parts.scenes import planted_parts


@pytest.fixture
def truth():
    """The part of each pixel of the planted scene."""
    return planted_parts()
