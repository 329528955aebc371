"""What a person meets who opens the studio for the first time, in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import imatlas as ia
from tests.studio.browsing import PATIENCE, api, by, faults, needs_chromium, on_page, picture, seen
from tests.studio.conftest import Studio

pytestmark = needs_chromium


def test_the_gallery_of_a_selection_ends_with_the_selection(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "gallery")
    seen(page, "gallery-total", "60 images")
    for i in range(3):
        by(page, "gallery-grid").locator("input[type=checkbox]").nth(i).check()
    page.locator("#selection-gallery").click()
    seen(page, "gallery-total", "3 images")
    api.expect(page.locator("#gallery-chosen")).to_contain_text("Only the 3 images selected")
    page.locator("#selection-clear").click()
    seen(page, "gallery-total", "60 images")
    api.expect(page.locator("#gallery-chosen")).to_be_hidden()


def test_what_was_moved_to_the_trash_is_marked_everywhere(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    by(page, "tab-duplicates").click()
    by(page, "duplicates-find").click()
    seen(page, "duplicate-group", "59.png")
    page.once("dialog", lambda dialog: dialog.accept())
    by(page, "duplicates-move").click()
    seen(page, "duplicates-found", "nothing was deleted")
    n_moved = len(studio.json("/api/atlas")["moved"])
    marked = by(page, "duplicates").locator(".badge", has_text="moved")
    api.expect(marked).to_have_count(n_moved)
    api.expect(by(page, "duplicates-move")).to_be_hidden()
    assert not faults(page)
    picture(page, "moved")
    page.reload()
    by(page, "nav-gallery").click()
    by(page, "filter-text").fill("59.png")
    seen(page, "gallery-grid", "moved to the trash")
    by(page, "nav-decide").click()
    by(page, "tab-duplicates").click()
    by(page, "duplicates-undo").click()
    seen(page, "duplicates-found", "Restored")
    api.expect(by(page, "duplicates-undo")).to_be_hidden()
    by(page, "duplicates-find").click()
    seen(page, "duplicate-group", "59.png")
    api.expect(marked).to_have_count(0)
    api.expect(by(page, "duplicates-move")).to_be_visible()


def test_duplicates_are_reviewed_and_undone_in_the_header(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    by(page, "tab-duplicates").click()
    by(page, "duplicates-find").click()
    groups = by(page, "duplicate-group")
    group = groups.filter(has_text="59.png")
    api.expect(group).to_have_count(1)
    n = groups.count()
    best = group.locator(".tile", has_text="best").locator(".key")
    api.expect(best).to_have_text("04.png")
    group.get_by_role("button", name="Keep 59.png of its group").click()
    api.expect(best).to_have_text("59.png")
    assert not faults(page)
    picture(page, "duplicates")
    by(page, "undo").click()
    api.expect(best).to_have_text("04.png")
    group.get_by_test_id("not-duplicates").click()
    api.expect(group).to_have_count(0)
    seen(page, "duplicates-different", "marked as no duplicates")
    by(page, "duplicates-find").click()
    api.expect(groups).to_have_count(n - 1)
    by(page, "duplicates-forget").click()
    api.expect(group).to_have_count(1)
    page.once("dialog", lambda dialog: dialog.accept())
    by(page, "duplicates-move").click()
    seen(page, "duplicates-found", "nothing was deleted")
    by(page, "undo").click()
    seen(page, "done", "Restored")
    api.expect(by(page, "duplicates").locator(".badge", has_text="moved")).to_have_count(0)
    assert studio.json("/api/atlas")["moved"] == []


def test_what_was_decided_is_told_where_it_is_seen(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    name = by(page, "cluster-name-0")
    name.fill("<b>pears</b>")
    name.press("Enter")
    api.expect(by(page, "done")).to_have_text("Cluster named “<b>pears</b>”.")
    assert not faults(page)
    picture(page, "done")
    by(page, "undo").click()
    api.expect(by(page, "done")).to_have_text("Undone: name a cluster '<b>pears</b>'.")
    api.expect(by(page, "done")).to_be_empty(timeout=PATIENCE)  # after some seconds


def test_names_are_proposed_with_progress_and_go_once_they_are_taken(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "decide")
    before = by(page, "words-propose").bounding_box()
    api.expect(by(page, "words-progress")).to_be_hidden()
    by(page, "words-propose").click()
    api.expect(by(page, "words-progress")).to_be_visible()
    assert by(page, "words-propose").bounding_box() == before
    seen(page, "words-note", "ImageNet")
    api.expect(by(page, "words-progress")).to_be_hidden()
    assert not faults(page)
    picture(page, "proposed")
    shares = [int(text.split()[-2]) for text in by(page, "proposed-name").all_inner_texts()]
    assert shares
    assert min(shares) >= 20
    card = by(page, "cluster").filter(has=by(page, "proposed-name")).first
    name = by(page, card.locator("input[type=text]").get_attribute("data-testid"))
    word = by(card, "proposed-name").first.inner_text().rsplit(" ", 2)[0]
    card = by(page, "cluster").filter(has=name)
    by(card, "proposed-name").first.click()
    seen(page, "done", f"Cluster named “{word}”.")
    api.expect(name).to_have_value(word)
    assert word not in [text.rsplit(" ", 2)[0] for text in by(card, "proposed-name").all_inner_texts()]


def test_propagating_shows_at_once_that_it_works(studio: Studio, visit: Callable[..., Any]) -> None:
    for label, rows in (("cat", [0, 2, 4]), ("coffee", [1, 3, 5])):
        studio.json("/api/decisions", {"kind": "label", "rows": rows, "value": label})
    page = visit(studio, "decide")
    by(page, "tab-labels").click()
    page.route("**/api/propagate", lambda route: (page.wait_for_timeout(400), route.continue_()))
    by(page, "propagate").click()
    api.expect(by(page, "propagate-progress")).to_be_visible()
    seen(page, "propagate-hint", "Predicting the labels of 60 images")
    seen(page, "prediction-counts", "coffee")
    api.expect(by(page, "propagate-progress")).to_be_hidden()
    api.expect(by(page, "propagate-hint")).to_be_empty()
    by(page, "prediction-map").click()
    api.expect(page.locator("#color-by")).to_have_value("predicted")
    counts = by(page, "legend").locator(".count")
    api.expect(counts).to_have_count(2)
    assert sum(int(text) for text in counts.all_inner_texts()) == 60
    by(page, "nav-decide").click()


def test_images_to_label_next_get_another_label_or_are_skipped(studio: Studio, visit: Callable[..., Any]) -> None:
    for label, rows in (("cat", [0, 2, 4]), ("coffee", [1, 3, 5])):
        studio.json("/api/decisions", {"kind": "label", "rows": rows, "value": label})
    page = visit(studio, "decide")
    by(page, "tab-labels").click()
    by(page, "propagate").click()
    items = by(page, "next-images").locator("li")
    api.expect(items.first).to_be_visible()
    n, row = items.count(), int(items.first.get_attribute("data-row"))
    by(items.first, "another").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("<b>saucer</b>")
    picture(page, "another-label")
    assert not faults(page)
    page.keyboard.press("Enter")
    api.expect(items).to_have_count(n - 1)
    assert studio.json(f"/api/images/{row}")["label"] == "<b>saucer</b>"
    api.expect(items.first.get_by_role("button", name="<b>saucer</b>")).to_be_visible()
    revision = studio.json("/api/atlas")["revision"]
    by(items.first, "skip").click()
    api.expect(items).to_have_count(n - 2)
    page.keyboard.press("0")  # the focus is on the next one
    api.expect(items).to_have_count(n - 3)
    assert studio.json("/api/atlas")["revision"] == revision


def test_cards_of_clusters_lead_to_their_images_and_names_become_labels(
    studio: Studio, visit: Callable[..., Any]
) -> None:
    first = next(one for one in studio.json("/api/atlas")["clusters"] if one["size"])
    page = visit(studio, "decide")
    api.expect(by(page, "names-as-labels")).to_be_hidden()
    typical = by(page, f"cluster-typical-{first['id']}")
    api.expect(typical.locator("img")).to_have_count(min(6, first["size"]))
    by(page, f"cluster-edit-{first['id']}").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("<b>cups</b>")
    page.keyboard.press("Enter")
    by(page, "names-as-labels").click()
    seen(page, "done", "labels of their images")
    assert studio.json("/api/atlas")["labels"] == [{"label": "<b>cups</b>", "count": first["size"]}]
    assert not faults(page)
    picture(page, "cards")
    typical.click()
    seen(page, "gallery-total", f"{first['size']} image")
    api.expect(by(page, "filter-cluster")).to_have_value(str(first["id"]))
    by(page, "undo").click()
    page.wait_for_function("() => window.studio.state.atlas.labels.length === 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_atlas_that_is_new_to_a_browser_is_told_of_once(
    studio: Studio, visit: Callable[..., Any], scheme: str
) -> None:
    n = sum(1 for cluster in studio.json("/api/atlas")["clusters"] if cluster["size"])
    page = visit(studio, color_scheme=scheme)
    api.expect(by(page, "first-facts")).to_have_text(f"60 images in {n} clusters.")
    assert not faults(page)
    picture(page, f"first-{scheme}")
    by(page, "first-duplicates").focus()
    page.keyboard.press("Enter")
    api.expect(by(page, "duplicates-find")).to_be_visible()
    api.expect(by(page, "first")).to_be_hidden()
    page.reload()
    page.wait_for_function("() => document.body.dataset.ready")
    api.expect(by(page, "first")).to_be_hidden()


def test_files_that_could_not_be_used_are_told_of(folder: Path, tmp_path: Path, opened: Any, visit: Any) -> None:
    source, learned = shutil.copytree(folder, tmp_path / "photos"), tmp_path / "mine.atlas"
    (source / "broken.png").write_bytes(b"no image")
    ia.learn(source, learned, progress=False, budget="15s", image_size=32, clusters=3)
    page = visit(opened(learned))
    api.expect(by(page, "first-facts")).to_have_text("60 images in 3 clusters; 1 file could not be used.")
    by(page, "first-close").click()
    api.expect(by(page, "first")).to_be_hidden()


def test_a_search_by_a_word_names_what_matched(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, "search")
    by(page, "word").fill("cup")
    by(page, "word").press("Enter")
    seen(page, "word-names", "of the 1,000 classes")
    seen(page, "word-names", "cup")
    seen(page, "search-results", "probable")
    assert not faults(page)
    picture(page, "word")


def test_on_a_phone_the_panels_leave_room_for_the_map(studio: Studio, visit: Callable[..., Any]) -> None:
    page = visit(studio, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("() => document.documentElement.scrollWidth") == 390
    controls, panel, bar = by(page, "color-by"), by(page, "image-panel"), by(page, "label-input")
    api.expect(controls).to_be_hidden()
    picture(page, "phone-map")
    page.touchscreen.tap(*on_page(page, 4))
    seen(page, "image-panel", "04.png")
    box = panel.bounding_box()
    assert box["y"] > 844 / 2  # the map is still there, above
    assert not faults(page)
    by(page, "image-more").tap()
    page.wait_for_function("(was) => document.querySelector('#image-panel').clientHeight > was", arg=box["height"] + 99)
    picture(page, "phone-image")
    by(page, "image-close").tap()
    by(page, "map-controls-toggle").tap()
    api.expect(controls).to_be_visible()
    by(page, "legend").get_by_role("button").first.tap()
    by(page, "map-controls-toggle").tap()
    api.expect(controls).to_be_hidden()
    api.expect(by(page, "selection-count")).to_be_visible()
    api.expect(bar).to_be_hidden()
    by(page, "selection-more").tap()
    api.expect(bar).to_be_visible()
    assert not faults(page)
    picture(page, "phone-selection")
    by(page, "selection-clear").tap()
    api.expect(by(page, "nav-work")).to_be_in_viewport(ratio=0.98)
