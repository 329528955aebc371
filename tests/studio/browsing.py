"""A real Chromium, and what tests do with pages in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SOFTWARE = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
LOADED = "() => window.studio?.map?.visibleTilesLoaded()"
PATIENCE = 60_000
api.expect.set_options(timeout=PATIENCE)

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (apt-get install chromium)")


def by(page: Any, name: str) -> Any:
    return page.get_by_test_id(name)


def picture(page: Any, name: str) -> None:
    """Write a picture of a page for the docs, if asked."""
    folder = os.environ.get("IMATLAS_PICTURES")
    if folder:
        page.wait_for_timeout(700)
        page.screenshot(path=Path(folder, f"{name}.png"))


def seen(page: Any, name: str, text: str) -> None:
    api.expect(by(page, name).first).to_contain_text(text, timeout=PATIENCE)


def on_page(page: Any, row: int) -> tuple[float, float]:
    x, y = page.evaluate("(row) => window.studio.map.project(row)", row)
    return float(x), float(y)


def settled(page: Any) -> None:
    """Wait for the end of a movement of the map."""
    before = None
    while (now := on_page(page, 0)) != before:
        before = now
        page.wait_for_timeout(300)
    page.wait_for_function(LOADED)


def faults(page: Any) -> list[str]:
    """Serious faults of accessibility, once colors have stopped changing."""
    page.wait_for_timeout(400)
    page.wait_for_function("() => !document.getAnimations().some((one) => one instanceof CSSTransition)")
    return [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]}"
        for fault in axe.Axe().run(page).response["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
