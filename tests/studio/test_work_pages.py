"""The view Work in a real Chromium: what a person does with one picture, by mouse and by keyboard."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from imatlas.models.parts.hierarchy import hierarchy_of
from imatlas.studio.workpiece import Workpiece
from imatlas.tasks.decompress import decompress_images
from tests.studio.browsing import PATIENCE, api, by, faults, needs_chromium, on_page, picture, seen
from tests.studio.conftest import Studio

pytestmark = needs_chromium


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph with a name that is no markup."""
    path = tmp_path / "<b>cat & co.png"
    Image.fromarray(data.chelsea()[:240, 80:400]).save(path)
    return path


def opened(page: Any, path: Path) -> None:
    """Bring a picture of one's own."""
    if by(page, "first").is_visible():  # it takes room from the picture
        by(page, "first-close").click()
    by(page, "work-file").set_input_files(path)
    seen(page, "work-name", path.name)


def found(page: Any) -> None:
    """Wait until the parts of the picture are found."""
    api.expect(by(page, "segments-count")).not_to_be_empty(timeout=PATIENCE)


def drawn(page: Any, *points: tuple[float, float]) -> None:
    """Draw a stroke through points, as shares of the width and height of the picture."""
    box = by(page, "strokes").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()


def downloaded(page: Any, link: Any) -> tuple[str, bytes]:
    """Name and content of the file behind a link."""
    with page.expect_download() as waiting:
        link.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_an_image_of_the_atlas_is_worked_on(studio: Studio, folder: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio)
    page.mouse.click(*on_page(page, 4))
    by(page, "work-on").click()
    seen(page, "work-name", "04.png")
    api.expect(by(page, "image-panel")).to_be_hidden()
    found(page)
    piece = Workpiece("04.png", (folder / "04.png").read_bytes())
    tree = hierarchy_of(piece.pixels, piece.spec)
    for level in (0.5, 0.1, 0.8):
        by(page, "segments-level").fill(str(level))
        n = int(tree.cut(level).max()) + 1
        api.expect(by(page, "segments-count")).to_have_text(f"{n} segment{'s' if n > 1 else ''}")
    name, content = downloaded(page, by(page, "segments-download"))
    assert name == "04-labels.png"
    assert np.array_equal(pixels_of(content), tree.cut(0.8) + 1)


def test_the_level_is_drawn_in_mean_colors(studio: Studio, photo: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio, "work")
    opened(page, photo)
    found(page)
    picture(page, "work-levels")
    piece = Workpiece("a.png", photo.read_bytes())
    labels = hierarchy_of(piece.pixels, piece.spec).cut(0.5)
    inside = labels == np.bincount(labels.ravel()).argmax()
    mean = piece.pixels[inside].mean(0)
    y, x = np.argwhere(inside)[len(np.argwhere(inside)) // 2]
    colors = by(page, "overlay").evaluate(
        "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 5, 1).data]", [int(x), int(y)]
    )
    nearest = min(np.abs(np.array(colors[i : i + 3]) - mean).max() for i in range(0, 20, 4))
    assert nearest <= 1  # some of them may lie on an outline


def test_strokes_divide_the_picture_at_once(studio: Studio, photo: Path, visit: Callable[..., Any]) -> None:
    studio.json("/api/decisions", {"kind": "label", "rows": [0], "value": "kept"})
    page = visit(studio, "work")
    opened(page, photo)
    found(page)
    by(page, "segments-strokes").click()
    drawn(page, (0.4, 0.5), (0.6, 0.6))
    by(page, "class-2").click()
    drawn(page, (0.03, 0.1), (0.03, 0.9))
    link = by(page, "strokes-download")
    api.expect(link).to_be_visible()
    name, content = downloaded(page, link)
    mask = pixels_of(content)
    assert (name, mask.shape, set(np.unique(mask))) == (
        "<b>cat & co-mask.png".replace("<b>", "_b_"),
        (240, 320),
        {1, 2},
    )
    assert (mask[120:144, 128:192:8].diagonal() == 1).all()
    assert (mask[30:200, 10] == 2).all()
    seen(page, "class-1", f"{100 * (mask == 1).mean():.0f} %")
    picture(page, "work-strokes")
    by(page, "strokes-undo").click()
    api.expect(link).to_be_hidden()
    by(page, "strokes").focus()
    page.keyboard.press("2")  # by keyboard alone, from the middle to the upper left
    for _ in range(4):
        page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press(" ")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press(" ")
    api.expect(link).to_be_visible()
    assert (pixels_of(downloaded(page, link)[1])[100:118, 32] == 2).all()
    by(page, "strokes").focus()
    page.keyboard.press("Control+z")
    api.expect(link).to_be_hidden()
    assert studio.json("/api/atlas")["labels"]  # a stroke was taken back, not a decision


def test_the_object_is_cut_out(studio: Studio, photo: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio, "work")
    opened(page, photo)
    found(page)
    by(page, "segments-object").click()
    link = page.locator("#object-download")
    api.expect(link).to_be_visible()
    assert pixels_of(downloaded(page, link)[1]).shape == (240, 320, 4)


def test_a_picture_is_restored_and_compared(studio: Studio, visit: Callable[..., Any], tmp_path: Path) -> None:
    path, good = tmp_path / "dark.png", data.coffee()[::2, ::2]
    Image.fromarray((0.2 * good).astype(np.uint8)).save(path)
    page = visit(studio, "work")
    opened(page, path)
    by(page, "task-restore").click()
    by(page, "restore-enhance").click()
    by(page, "restore-from").select_option("image")
    by(page, "restore-start").click()
    seen(page, "restore-verdict", "Corrected")
    picture(page, "work-enhanced")
    divider = page.locator("#work-restore [data-testid=divider]")
    divider.focus()
    page.keyboard.press("ArrowRight")
    assert float(divider.input_value()) == 50.5
    box = divider.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    assert abs(float(divider.input_value()) - 25) < 1
    name, content = downloaded(page, page.locator("#work-restore [data-testid=download]"))
    assert name == "dark-enhanced.png"
    assert pixels_of(content).mean() > 60
    good_path = tmp_path / "good.png"
    Image.fromarray(good).save(good_path)
    opened(page, good_path)
    by(page, "restore-start").click()
    seen(page, "restore-verdict", "left alone")
    api.expect(page.locator("#work-restore [data-testid=download]")).to_have_count(0)


def test_learning_shows_its_progress_and_is_cancelled(studio: Studio, photo: Path, visit: Callable[..., Any]) -> None:
    page = visit(studio, "work")
    opened(page, photo)
    by(page, "task-restore").click()
    by(page, "restore-upscale").click()
    by(page, "restore-budget").select_option("10m")
    by(page, "restore-start").click()
    running = page.locator("#work-restore [data-testid=running]")
    api.expect(running).to_contain_text("of at most 10 min", timeout=PATIENCE)
    running.get_by_test_id("work-cancel").click()
    api.expect(running).to_be_hidden()
    by(page, "restore-enhance").click()
    by(page, "restore-from").select_option("image")
    by(page, "restore-start").click()  # which waits for no ten minutes
    seen(page, "restore-verdict", "probability that")


def test_a_picture_is_compressed(studio: Studio, photo: Path, visit: Callable[..., Any], tmp_path: Path) -> None:
    page = visit(studio, "work")
    opened(page, photo)
    by(page, "task-compress").click()
    by(page, "compress-quality").fill("30")
    by(page, "compress-start").click()
    sizes = by(page, "size")
    api.expect(sizes.first).to_be_visible(timeout=PATIENCE)
    texts = sizes.all_inner_texts()
    assert [text.split()[0] for text in texts] == ["imatlas", "WebP", "AVIF", "original"]
    name, content = downloaded(page, page.locator("#work-compress [data-testid=download]"))
    assert name.endswith("cat & co.imc")
    size = f"{len(content) / 1000:.2f} kB"
    assert size in texts[0]
    (tmp_path / "a.imc").write_bytes(content)
    decompress_images(tmp_path / "a.imc", tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (240, 320, 3)
    picture(page, "work-compressed")
    page.locator("#work-compress [data-compare=difference]").click()
    picture(page, "work-difference")
    by(page, "compress-quality").fill("60")
    by(page, "compress-quality").dispatch_event("change")
    api.expect(sizes.first).not_to_contain_text(size, timeout=PATIENCE)
    larger = page.locator("#work-compress [data-testid=download]")
    assert len(downloaded(page, larger)[1]) > len(content)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(studio: Studio, photo: Path, visit: Callable[..., Any], scheme: str) -> None:
    page = visit(studio, "work", color_scheme=scheme, viewport={"width": 480, "height": 900})
    found_faults = []

    def look() -> None:
        found_faults.extend(faults(page))

    look()
    opened(page, photo)
    found(page)
    look()
    by(page, "segments-strokes").click()
    look()
    by(page, "task-restore").click()
    by(page, "restore-enhance").click()
    by(page, "restore-start").click()
    seen(page, "restore-verdict", "probability that")
    look()
    by(page, "task-compress").click()
    by(page, "compress-start").click()
    api.expect(by(page, "size").first).to_be_visible(timeout=PATIENCE)
    look()
    assert not found_faults
