"""How large is a page, how long does it take to write, and what does a browser do when it opens?

    python benchmarks/report_pages.py --out benchmarks/report_pages.json

Synthetic studies of 540 and 5,400 runs (10 batch sizes, 9 rates), and one of 38 batch sizes and 21 rates. Writing is
timed alternately. Opening is timed in Chromium, with the network refused, where there are Playwright and it: the
longest task of the page's thread ("longtask" entries; 0 where none was over 50 ms), layout and all.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rightbatch.pipeline.sheets import sheet_of
from rightbatch.report.page import write_page
from rightbatch.testing import synthetic_study

WIDE = tuple(sorted({round(2 * 1.22**k) for k in range(40)}))
STUDIES: dict[str, dict[str, Any]] = {
    "540 runs": {"seeds": 6},
    "5,400 runs": {"seeds": 60},
    "38 sizes, 21 rates": {"batch_sizes": WIDE, "seeds": 6, "rates_around": 10},
}
WATCH = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({type: "longtask", buffered: true});
"""


def opened(page: Path) -> dict[str, float] | None:
    """Milliseconds of the longest task, and until the page was loaded; None where there is no browser."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.context.set_offline(True)
        tab.add_init_script(WATCH)
        tab.goto(page.as_uri())
        tab.wait_for_timeout(1000)
        longest = tab.evaluate("window.longest")
        loaded = tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
        browser.close()
    return {"longest_task_ms": longest, "loaded_ms": loaded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/report_pages.json"))
    given = parser.parse_args()
    rows = {}
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{k}.study.db" for k, name in enumerate(STUDIES)}
        seconds: dict[str, list[float]] = {name: [] for name in STUDIES}
        for name, how in STUDIES.items():
            synthetic_study(paths[name], **how).close()
        for _ in range(given.turns):
            for name, path in paths.items():
                started = time.perf_counter()
                sheet = sheet_of(path)
                page = write_page(sheet, path.with_suffix(".html"))
                seconds[name].append(time.perf_counter() - started)
                rows[name] = {"runs": len(sheet.evidence.runs), "bytes": page.stat().st_size}
        for name, path in paths.items():
            middle = statistics.median(seconds[name])
            rows[name] |= {"seconds": middle, "milliseconds_a_run": 1000 * middle / rows[name]["runs"]}
            rows[name] |= opened(path.with_suffix(".html")) or {}
            print(name, rows[name], flush=True)
    record = {
        "command": " ".join(["python", *sys.argv]),
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "studies": rows,
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
