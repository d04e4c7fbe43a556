"""Bring a Chromium for the tests that drive the page, unless the machine has one.

`python -m tests.install_browser` prints the one that will be used. The machine's own comes first,
then Debian's package where this may install one, then Playwright's download.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""What Chromium and its branded sister are called on a PATH."""


def find_browser() -> str | None:
    """The path of a Chromium: the variable CHROMIUM's, one on PATH, or Playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named
    if found := next(filter(None, map(shutil.which, NAMES)), None):
        return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install_browser() -> str:
    """Find a browser or install one; its path. Exits with a sentence where neither works."""
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        ways[0].append("--with-deps")
        apt, install = ["apt-get", "-qq"], ["install", "-y", "--no-install-recommends", NAMES[0]]
        ways = [[*apt, "update"], [*apt, *install], *ways]
    for command in ways:
        if find_browser():
            break
        print(*command, flush=True)
        subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    return find_browser() or sys.exit(
        "The page's tests need a browser, and none could be installed: "
        "install Chromium or Chrome, then run this again."
    )


if __name__ == "__main__":
    print(f"Browser for the tests: {install_browser()}")
