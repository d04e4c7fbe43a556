"""The README's pictures, taken of a page that runs: `python -m tests.pictures [ADDRESS]`.

Take them on a machine with nothing else to do, since they show times. Look at each before it is
committed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.conftest import BROWSER_ARGUMENTS
from tests.install_browser import find_browser

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "images"
CLIP = "sample=librivox-sense&schedule=in-turn"
COLOURS = 160
PATIENCE = 900_000
"""Milliseconds: a first run compiles."""

PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "page": ("light", {"viewport": {"width": 1280, "height": 720}}),
    "stage": ("dark&stage=1", {"viewport": {"width": 1280, "height": 720}}),
}
"""By name: the theme with other words of the address, and the browser's window."""

CHECKED = "([id, value]) => document.querySelector(`#${id} input:checked`)?.value === value"


def take(page: Any, name: str) -> bytes:
    """Run to the end, until everything is drawn, and take the picture; on stage of the verdict."""
    page.wait_for_function(CHECKED, arg=["sample", "librivox-sense"])
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    page.evaluate("document.querySelector('#compare').click()")
    page.locator("#compare:disabled").wait_for(state="attached")
    page.locator("#compare:enabled").wait_for(state="attached")
    if name == "stage":
        page.keyboard.press("PageDown")
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(2000)
    return bytes(page.screenshot())


def main() -> None:
    """Take them all and keep them with so few colours that they stay small."""
    from playwright.sync_api import sync_playwright

    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_ARGUMENTS)
        for name, (query, window) in PICTURES.items():
            page = browser.new_page(**window)
            page.set_default_timeout(PATIENCE)
            page.goto(f"{address}?{CLIP}&__theme={query}")
            picture = Image.open(io.BytesIO(take(page, name))).convert("RGB")
            page.close()
            path = FOLDER / f"{name}.png"
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(
                f"{path.name}: {picture.width} × {picture.height}, {path.stat().st_size >> 10} kB"
            )
        browser.close()


if __name__ == "__main__":
    main()
