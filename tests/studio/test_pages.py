"""The pages of the studio in a real Chromium: what a person does in each view, by mouse and by keyboard.

With IMATLAS_PICTURES=FOLDER, pictures of the views are written there, as docs/studio.md shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imatlas as ia
from tests.studio.browsing import LOADED, PATIENCE, api, by, faults, needs_chromium, on_page, picture, seen, settled
from tests.studio.conftest import Studio

pytestmark = needs_chromium


def lasso(page: Any, rows: list[int], margin: float) -> None:
    """Draw a line around the places of some images."""
    places = [on_page(page, row) for row in rows]
    left, right = (pick(x for x, _ in places) for pick in (min, max))
    top, bottom = (pick(y for _, y in places) for pick in (min, max))
    corners = [(left - margin, top - margin), (right + margin, top - margin), (right + margin, bottom + margin)]
    corners += [(left - margin, bottom + margin), (left - margin, top - margin)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()


def test_zoom_select_label_and_undo(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    picture(page, "map")
    page.evaluate("() => window.studio.map.goTo(60, 40, 3)")
    page.wait_for_function(LOADED)
    by(page, "zoom-fit").click()
    settled(page)
    by(page, "tool-lasso").click()
    xy = page.evaluate("() => Array.from({length: 60}, (_, row) => window.studio.map.project(row))")
    left_most = sorted(range(60), key=lambda row: xy[row][0])
    lasso(page, left_most[:16], 4)
    text = by(page, "selection-count").inner_text()
    n = int(text.split()[0])
    assert 16 <= n < 60
    by(page, "label-input").fill("left")
    by(page, "label-input").press("Enter")
    api.expect(by(page, "undo")).to_be_enabled()
    page.wait_for_function("() => window.studio.state.atlas.labels.length === 1")
    state = ia.Atlas(studio.folder).decisions.state
    assert set(state.labels.values()) == {"left"}
    assert len(state.labels) == n
    picture(page, "selected")
    by(page, "undo").click()
    page.wait_for_function("() => window.studio.state.atlas.labels.length === 0")
    assert ia.Atlas(studio.folder).decisions.state.labels == {}
    page.keyboard.press("Control+Shift+z")
    page.wait_for_function("() => window.studio.state.atlas.labels.length === 1")


def test_the_map_by_keyboard_alone(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    by(page, "map-canvas").focus()
    before = on_page(page, 0)
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "([x, y]) => { const [a, b] = window.studio.map.project(0); return a !== x || b !== y }", arg=before
    )
    page.wait_for_function(LOADED)
    page.keyboard.press("Enter")
    api.expect(by(page, "image-panel")).to_be_visible()
    page.keyboard.press("Escape")
    api.expect(by(page, "image-panel")).to_be_hidden()


def test_an_image_its_neighbors_and_a_region_of_it(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "map?image=4")
    page.mouse.click(*on_page(page, 4))
    seen(page, "image-panel", "04.png")
    seen(page, "neighbors", "")
    picture(page, "image")
    frame = by(page, "image-picture").bounding_box()
    page.mouse.move(frame["x"] + 0.2 * frame["width"], frame["y"] + 0.2 * frame["height"])
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.8 * frame["width"], frame["y"] + 0.8 * frame["height"], steps=5)
    page.mouse.up()
    by(page, "search-region").click()
    api.expect(by(page, "search-results").locator("li").first).to_be_visible()
    assert by(page, "search-results").locator("li").count() >= 10
    picture(page, "search")


def test_the_gallery_is_filtered_and_selects(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "gallery")
    seen(page, "gallery-total", "60")
    by(page, "filter-text").fill("0.png")
    seen(page, "gallery-total", "6")
    by(page, "gallery-grid").locator("input[type=checkbox]").first.check()
    seen(page, "selection-count", "1 image")
    by(page, "selection-leave-out").click()
    page.wait_for_function("() => window.studio.state.atlas.undo !== null")
    assert ia.Atlas(studio.folder).decisions.state.left_out == {"00.png"}
    by(page, "filter-text").fill("")
    seen(page, "gallery-total", "60")
    picture(page, "gallery")


def test_labels_spread_and_clusters_get_names(studio: Studio, visit: Callable[..., Any]) -> None:
    for label, rows in (("cat", [0, 2, 4]), ("coffee", [1, 3, 5])):
        studio.json("/api/decisions", {"kind": "label", "rows": rows, "value": label})
    page = visit(studio, "decide")
    by(page, "tab-labels").click()
    by(page, "propagate").click()
    seen(page, "prediction-counts", "coffee")
    picture(page, "decide")
    by(page, "tab-clusters").click()
    name = by(page, "cluster-name-0")
    name.fill("drinks")
    name.press("Enter")
    page.wait_for_function("() => window.studio.state.atlas.clusters[0].name === 'drinks'")
    assert "drinks" in ia.Atlas(studio.folder).decisions.state.names.values()


def test_outliers_and_duplicates_are_reviewed(studio: Studio, folder: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    by(page, "tab-outliers").click()
    api.expect(by(page, "outlier-sentence")).not_to_be_empty()
    by(page, "tab-duplicates").click()
    by(page, "duplicates-find").click()
    seen(page, "duplicate-group", "59.png")
    page.once("dialog", lambda dialog: dialog.accept())
    before = len(list(folder.iterdir()))
    by(page, "duplicates-move").click()
    seen(page, "duplicates-found", "nothing was deleted")
    assert len(list(folder.iterdir())) < before
    by(page, "duplicates-undo").click()
    seen(page, "duplicates-found", "Restored")
    assert len(list(folder.iterdir())) == before


def test_new_images_at_a_place(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    page.mouse.click(*on_page(page, 4))
    by(page, "create-from").click()
    by(page, "create-n").fill("3")
    by(page, "create-make").click()
    api.expect(by(page, "create-results").get_by_test_id("made-image")).to_have_count(3, timeout=PATIENCE)
    picture(page, "create")


def test_a_picture_of_ones_own_is_searched_for(studio: Studio, folder: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio, "search")
    by(page, "search-file").set_input_files(folder / "07.png")
    seen(page, "search-results", "07.png")


def test_several_tabs_follow_each_other(studio: Studio, visit: Callable[..., Any]) -> None:
    first, second = visit(studio), visit(studio)
    studio.json("/api/decisions", {"kind": "label", "rows": [0], "value": "x"})
    for page in (first, second):
        page.bring_to_front()
        page.reload()
        page.wait_for_function(LOADED)
        assert page.evaluate("() => window.studio.state.atlas.labels.length") == 1


@pytest.mark.parametrize("view", ["map", "gallery", "search", "decide", "create", "work"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(studio: Studio, visit: Callable[..., Any], view: str, scheme: str) -> None:
    page = visit(studio, view, color_scheme=scheme)
    assert not faults(page)
    if scheme == "dark" and view == "map":
        picture(page, "dark")
