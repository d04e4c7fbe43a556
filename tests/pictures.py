"""The README's pictures, taken of a page that runs: `python -m tests.pictures [ADDRESS]`.

Take them on a machine with nothing else to do, since they show times. Look at each before it is
committed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from tests.conftest import BROWSER_ARGUMENTS
from tests.install_browser import find_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "images"
CLIP = "&sample=librivox-sense&schedule=in-turn"
COLOURS = 160
PATIENCE = 900_000
"""Milliseconds: a first run compiles."""


def main() -> None:
    """Take them all."""
    from playwright.sync_api import sync_playwright

    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_ARGUMENTS)
        take_page(browser, address)
        take_stage(browser, address)
        take_narrow(browser, address)
        browser.close()


def open_page(
    browser: Browser,
    address: str,
    theme: str,
    width: int,
    height: int,
    query: str = "",
    scale: int = 1,
) -> Page:
    """A fresh tab with the clip and the schedule that the query says."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}?__theme={theme}{CLIP}{query}")
    page.wait_for_function(
        "document.querySelector('#sample input:checked')?.value === 'librivox-sense'"
    )
    page.wait_for_function(
        "document.querySelector('#schedule input:checked')?.value === 'one at a time'"
    )
    page.locator("#audio .play-pause-button").wait_for(state="attached")
    return page


def compare(page: Page) -> None:
    """Run to the end, until everything is drawn."""
    page.evaluate("document.querySelector('#compare').click()")
    page.locator("#compare:disabled").wait_for()
    page.locator("#compare:enabled").wait_for()
    page.locator("#features img").nth(2).wait_for()
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(800)


def save(name: str, png: bytes) -> None:
    """Keep a picture with so few colours that it stays small."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    path = FOLDER / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {picture.width} × {picture.height}, {path.stat().st_size // 1024} kB")


def take_page(browser: Browser, address: str) -> None:
    """The comparison and where its time went."""
    page = open_page(browser, address, "light", 1400, 900, "&runs=3")
    compare(page)
    end = page.evaluate(
        "document.querySelector('#timings').closest('.sheet').getBoundingClientRect().bottom"
        " + scrollY"
    )
    clip = {"x": 0, "y": 0, "width": 1400, "height": round(end) + 16}
    save("page", page.screenshot(full_page=True, clip=clip))  # type: ignore[arg-type]
    page.context.close()


def take_stage(browser: Browser, address: str) -> None:
    """Stage mode, as the back row sees it."""
    page = open_page(browser, address, "dark", 1600, 900, "&stage=1")
    compare(page)
    save("stage", page.screenshot())
    page.context.close()


def take_narrow(browser: Browser, address: str) -> None:
    """A phone."""
    page = open_page(browser, address, "light", 390, 844, scale=2)
    compare(page)
    page.evaluate("document.querySelector('#summary').scrollIntoView()")
    page.wait_for_timeout(500)
    save("narrow", page.screenshot())
    page.context.close()


if __name__ == "__main__":
    main()
