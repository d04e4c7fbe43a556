"""The README's pictures, taken of a page that runs: `python -m tests.pictures [ADDRESS]`.

Take them on a machine with nothing else to do, since they show times. Look at each before it is
committed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from PIL import Image

from tests.conftest import BROWSER_ARGUMENTS
from tests.install_browser import find_browser

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "images"
CLIP = "sample=librivox-sense&schedule=in-turn"
PATIENCE = 900_000  # milliseconds: a first run compiles

PICTURES = {"page": "light", "stage": "dark&stage=1"}
"""By name: the theme with other words of the address."""

CHECKED = "document.querySelector('#sample input:checked')?.value === 'librivox-sense'"


def main() -> None:
    """Take each after a run, when everything is drawn, on stage of the verdict; and keep it with so
    few colours that it stays small."""
    from playwright.sync_api import sync_playwright

    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=BROWSER_ARGUMENTS)
        for name, query in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            page.set_default_timeout(PATIENCE)
            page.goto(f"{address}?{CLIP}&__theme={query}")
            page.wait_for_function(CHECKED)
            page.locator("#audio .play-pause-button").wait_for(state="attached")
            page.evaluate("document.querySelector('#compare').click()")
            for state in ("disabled", "enabled"):
                page.locator(f"#compare:{state}").wait_for(state="attached")
            if name == "stage":
                page.keyboard.press("PageDown")
            page.mouse.move(0, 0)
            page.evaluate("document.activeElement.blur()")
            page.wait_for_timeout(2000)
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            path = FOLDER / f"{name}.png"
            picture.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{path.name}: {picture.size}, {path.stat().st_size >> 10} kB")


if __name__ == "__main__":
    main()
