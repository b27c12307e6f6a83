"""How fast the web app shows a graph of 18,922 ops: a fresh server and Chromium for every round.

    python benchmarks/web.py [--run FILE.qscope] [--rounds 5]

Needs the extra "test" and a Chromium. Prints the table of docs/benchmarks.md. First view is from the first request to
the graph drawn and laid out; a click counts until the op is in the middle, or the group's ops are there; a frame is
the time between two pictures while the pointer pans and the wheel zooms.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from playwright.sync_api import Browser, Page

import large_run
from browsing import CENTRED, browsing
from quantscope.serve.app import BUILT
from serving import Server, serving

LAYERS = 310
# Each frame is as long as the screen takes, or as the drawing does.
FRAMES = """(count) => new Promise((done) => {
    const canvas = document.querySelector('[data-testid=graph]');
    const view = canvas.getBoundingClientRect();
    const at = { clientX: view.x + view.width / 2, clientY: view.y + view.height / 2, bubbles: true };
    const frames = [];
    let before = performance.now();
    const step = (now) => {
        frames.push(now - before);
        before = now;
        if (frames.length > count) return done(frames.slice(1));
        const wheel = frames.length % 2
            ? { deltaY: 40 * (frames.length % 40 < 20 ? 1 : -1) }
            : { deltaX: 12, deltaY: 30 * (frames.length % 80 < 40 ? 1 : -1) };
        canvas.dispatchEvent(new WheelEvent('wheel', { ...at, ...wheel, cancelable: true }));
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""
NAMES = {
    "first_view_s": "first view, server just started, s",
    "up_view_s": "first view, server up for three seconds, s",
    "warm_view_s": "first view, run read before, s",
    "centred_s": "row click → node centred, s",
    "expanded_s": "expand one group, s",
    "frame_ms": "pan/zoom frame, median ms",
    "frame_p95_ms": "pan/zoom frame, 95th percentile ms",
}


# As long as it takes to see the link, and to click it.
_UP_SECONDS = 3.0


@dataclass(frozen=True)
class Round:
    """What one reader waited for."""

    first_view_s: float
    up_view_s: float
    warm_view_s: float
    centred_s: float
    expanded_s: float
    frame_ms: float
    frame_p95_ms: float


def wait_for_graph(page: Page) -> None:
    """Wait until the graph and the table are there."""
    page.get_by_test_id("graph-state").filter(has_text="boxes").wait_for()
    page.get_by_test_id("ops-row").first.wait_for()


def view(browser: Browser, server: Server, run: str) -> tuple[Page, float]:
    """A new reader's page on the graph of a run, and how long it took."""
    page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
    began = time.monotonic()
    page.goto(f"{server.url}?token={server.token}&to=/runs/{run}/graph")
    wait_for_graph(page)
    return page, time.monotonic() - began


def centred(page: Page) -> float:
    """Click a row whose op is hidden; how long until it is in the middle."""
    op = page.get_by_test_id("ops-row").nth(3).locator("> *").first.inner_text()
    if page.evaluate("(name) => window.quantscope.boxOf(name) !== null", op):
        raise SystemExit(f"{op} is shown already: nothing to measure")
    page.get_by_test_id("ops-row").nth(3).scroll_into_view_if_needed()
    began = time.monotonic()
    page.get_by_test_id("ops-row").nth(3).click()
    page.wait_for_function(CENTRED, arg=op)
    return time.monotonic() - began


def expanded(page: Page) -> float:
    """Close all, and open the first group of the outline; how long until more boxes are laid out."""
    page.get_by_test_id("collapse-all").click()
    wait_for_graph(page)
    before = page.get_by_test_id("graph-state").inner_text()
    closed = page.locator("[data-testid=outline-item][aria-expanded=false]").first
    twist = closed.locator("span").first
    return float(
        page.evaluate(
            """([element, before]) => new Promise((done) => {
                const state = document.querySelector('[data-testid=graph-state]');
                const began = performance.now();
                new MutationObserver(() => {
                    const text = state.textContent;
                    if (text.includes('boxes') && text !== before)
                        requestAnimationFrame(() => done((performance.now() - began) / 1000));
                }).observe(state, { childList: true, characterData: true, subtree: true });
                element.click();
            })""",
            [twist.element_handle(), before],
        )
    )


def measure(folder: Path, run: str) -> Round:
    """One round with a server and a browser of its own."""
    with browsing() as browser, serving(folder, BUILT) as server:
        time.sleep(_UP_SECONDS)
        page, up = view(browser, server, run)
        page.context.close()
    with browsing() as browser, serving(folder, BUILT) as server:
        page, first = view(browser, server, run)
        page.context.close()
        page, warm = view(browser, server, run)
        click = centred(page)
        group = expanded(page)
        frames: list[float] = page.evaluate(FRAMES, 200)
        page.context.close()
    return Round(first, up, warm, click, group, statistics.median(frames), statistics.quantiles(frames, n=20)[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run file; a generated one if none is given")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if arguments.run:
            shutil.copy(arguments.run, folder / "large.qscope")
        else:
            print(f"{len(large_run.write(folder / 'large.qscope', LAYERS).ops):,} ops", flush=True)
        load = os.getloadavg()[0]
        rounds = [measure(folder, "large") for _ in range(arguments.rounds)]
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after\n")
    print("| | median | least | most |\n|---|---|---|---|")
    for field in fields(Round):
        values = [asdict(found)[field.name] for found in rounds]
        digits = 0 if field.name.endswith("_ms") else 2
        cells = " | ".join(f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
        print(f"| {NAMES[field.name]} | {cells} |")


if __name__ == "__main__":
    main()
