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
    for name in NAMES:
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def install_browser() -> str:
    """Find a browser or install one; its path. Exits with a sentence where neither works."""
    if found := find_browser():
        return found
    for install in (_from_debian, _from_playwright):
        install()
        if found := find_browser():
            return found
    sys.exit(
        "The page's tests need a browser, and none could be installed: "
        "install Chromium or Chrome, then run this again."
    )


def _may_use_apt() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _from_debian() -> None:
    """Debian's package, with the libraries and fonts it needs; only root may."""
    if not _may_use_apt():
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        print("apt-get", *arguments, flush=True)
        if subprocess.run(["apt-get", "-qq", *arguments], env=quiet, check=False).returncode:
            return


def _from_playwright() -> None:
    """The build Playwright was tested with, in its own cache folder."""
    arguments = ["install", "chromium", *(["--with-deps"] if _may_use_apt() else [])]
    print("playwright", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "playwright", *arguments], check=False)


if __name__ == "__main__":
    print(f"Browser for the tests: {install_browser()}")
