"""The pictures of the README and the documentation: `python docs/screenshots.py` (needs Playwright and Chromium).

The page of benchmarks/fashion_mnist_mlp as a browser shows it: wide, and at the width of a telephone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report.page import write_page

HERE = Path(__file__).parent
STUDY = HERE.parent / "benchmarks" / "fashion_mnist_mlp" / "fashion_mnist-mlp.study.db"
SHOTS = {
    "page.png": (1100, 1050, "light", 0),
    "page-phone.png": (390, 844, "light", 1480),
}
"""File, width and height of the window in pixels, light, how far it is scrolled."""


def main() -> None:
    with TemporaryDirectory() as folder, sync_playwright() as driver:
        address = write_page(sheet_of(STUDY), Path(folder) / "page.html").as_uri()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (width, height, light, down) in SHOTS.items():
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=light)
            page = context.new_page()
            page.goto(address)
            page.evaluate(f"window.scrollTo(0, {down})")
            page.screenshot(path=HERE / name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
