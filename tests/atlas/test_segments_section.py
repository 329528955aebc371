"""The report's section of segments."""

import numpy as np
import pytest

import imatlas as ia
from imatlas.atlas.report_sections import sections
from imatlas.atlas.segments_section import segments

pytestmark = pytest.mark.usefixtures("one_thread")


def photos(size=96, n=8):
    """Discs in even images and boxes in odd ones, always in the middle, on a ground with noise (n, size, size, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - size // 2
    pixels = np.full((n, size, size, 3), 110.0)
    pixels[0::2, y**2 + x**2 < (size // 4) ** 2] = (210, 40, 40)
    pixels[1::2, (abs(y) < size // 4) & (abs(x) < size // 5)] = (40, 60, 190)
    return np.clip(pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    return ia.learn(photos(), tmp_path_factory.mktemp("segments") / "a.atlas", budget="1s", progress=False)


def test_things_have_borders_and_the_same_color_in_all_images(atlas):
    (panel,) = segments(atlas.store).panels
    assert len(panel.rows) == 8
    colors = {True: [], False: []}
    for image, parts, kinds in panel.rows:
        assert (parts == (255, 220, 0)).all(axis=2).any()
        color = 2 * kinds.astype(int) - image
        assert np.abs(color[48, 48] - color[4, 4]).max() > 20  # not the ground's
        colors[bool(image[48, 48, 0] > 150)].append(color[48, 48])
    red, blue = (np.array(of) for of in colors.values())
    assert len(red) == len(blue) == 4
    assert max(np.ptp(red, axis=0).max(), np.ptp(blue, axis=0).max()) < 4
    assert np.abs(red.mean(axis=0) - blue.mean(axis=0)).max() > 20


def test_the_report_has_it_and_names_the_command(atlas):
    found = {section.name: section for section in sections(atlas)}
    assert "imatlas segment" in found["segments"].sentences[-1]


def test_nothing_learned_with_labels_is_shown_where_none_is_wanted(atlas, monkeypatch):
    monkeypatch.setitem(atlas.store.manifest.settings, "encoder", "own")
    assert segments(atlas.store) is None


def test_small_images_have_none(tmp_path):
    small = ia.learn(photos(size=32), tmp_path / "small.atlas", budget="1s", progress=False)
    assert segments(small.store) is None
