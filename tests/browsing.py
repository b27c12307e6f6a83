"""Chromium as a reader of the web app, for the tests that need a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SCREENSHOTS = Path(__file__).parents[1] / ".cache" / "screenshots"

# Where a box is from the middle of the canvas, in pixels; null while a closed group hides it.
_OFFSET = """(name) => {
    const box = window.quantscope?.boxOf(name);
    if (!box) return null;
    const view = document.querySelector('[data-testid=graph]').getBoundingClientRect();
    return {
        x: box.x + box.width / 2 - (view.x + view.width / 2),
        y: box.y + box.height / 2 - (view.y + view.height / 2),
    };
}"""
CENTRED = f"(name) => {{ const at = ({_OFFSET})(name); return at && Math.abs(at.x) < 2 && Math.abs(at.y) < 2; }}"

# The colours of the canvas from left to right across the left edge of a box, half way down.
_EDGE = """(name) => {
    const canvas = document.querySelector('[data-testid=graph]');
    const view = canvas.getBoundingClientRect();
    const box = window.quantscope.boxOf(name);
    const [x, y] = [Math.round(box.x - view.x) - 8, Math.round(box.y + box.height / 2 - view.y)];
    const data = canvas.getContext('2d').getImageData(x, y, 16, 1).data;
    return Array.from({ length: 16 }, (_, i) =>
        '#' + [...data.slice(4 * i, 4 * i + 3)].map((v) => v.toString(16).padStart(2, '0')).join(''));
}"""


def chromium() -> str:
    """The browser's program; the test is skipped if there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium on this machine; next step: apt-get install chromium")
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    program = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: Browser, *origins: str, expected: str = "", **options: Any) -> Iterator[Page]:
    """A page of its own profile that loads from these addresses alone and reports no error, or the test fails.

    Args:
        expected: errors of the console that hold this text are part of the test.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "color_scheme": "light", **options})
    problems: list[str] = []

    def is_own(url: str) -> bool:
        return url.startswith((*origins, "blob:", "data:"))

    def heard(line: ConsoleMessage) -> None:
        if line.type == "error":
            problems.append(f"{line.text} ({line.location['url']})")

    context.on("console", heard)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("request", lambda request: None if is_own(request.url) else problems.append(f"asks {request.url}"))
    try:
        yield context.new_page()
    finally:
        context.close()
    unexpected = [problem for problem in problems if not expected or expected not in problem]
    assert not unexpected, unexpected


@dataclass
class Site:
    """A served folder, and the browser to look at it."""

    server: Server
    folder: Path
    browser: Browser

    @contextmanager
    def visit(self, route: str = "/", *, expected: str = "", **options: Any) -> Iterator[Page]:
        """A page on this route of the app, opened with the link that the server prints."""
        with watched(self.browser, self.server.url, expected=expected, **options) as page:
            page.goto(f"{self.server.url}?token={self.server.token}&to=/")
            page.get_by_test_id("theme").wait_for()
            if route != "/":
                page.goto(f"{self.server.url}#{route}")
            yield page

    def answer(self, address: str) -> Any:
        """What the API answers."""
        with self.server.client() as client:
            response = client.get(f"/api/{address}")
            assert response.status_code == 200, response.text
            return response.json()


def wait_for_graph(page: Page) -> None:
    """Wait until the graph is laid out."""
    page.get_by_test_id("graph-state").filter(has_text="boxes").wait_for()


def wait_until_centred(page: Page, op: str) -> None:
    """Wait until an op is in the middle of the graph."""
    page.wait_for_function(CENTRED, arg=op)


def is_shown(page: Page, box: str) -> bool:
    """Whether no closed group hides an op or a group, which is named "#3"."""
    return page.evaluate("(name) => window.quantscope.boxOf(name) !== null", box) is True


def edge_colours(page: Page, op: str) -> list[str]:
    """The colours across the left edge of an op's box as they are drawn."""
    colours: list[str] = page.evaluate(_EDGE, op)
    return colours


def click_box(page: Page, box: str, *, down: float | None = None) -> None:
    """Click an op or a group in the middle, or so many pixels below its upper edge."""
    found = page.evaluate("(name) => window.quantscope.boxOf(name)", box)
    y = found["y"] + (found["height"] / 2 if down is None else down)
    page.mouse.click(found["x"] + found["width"] / 2, y)


def cells(rows: Locator, column: int) -> list[str]:
    """The texts of a column of a table's rows, from top to bottom as they are seen."""
    found: list[list[Any]] = rows.evaluate_all(
        "(rows, column) => rows.map((row) => [row.getBoundingClientRect().y, row.children[column].textContent])", column
    )
    return [text for _, text in sorted(found)]
