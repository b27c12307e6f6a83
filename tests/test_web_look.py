"""How every page of the web app looks: readable for all, within the window; pictures of all in .cache/screenshots."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from browsing import SCREENSHOTS, Site, wait_for_graph
from test_web_graph import CONV

PAGES = {
    "runs": "/",
    "overview": "/runs/coarse/overview",
    "graph": f"/runs/coarse/graph?op={CONV}",
    "graph-rec": "/runs/rec/graph",
    "weights": f"/runs/coarse/weights?op={CONV}",
    "suggestions": "/runs/coarse/suggestions",
    "nothing-to-suggest": "/runs/rec/suggestions",
    "trials": "/runs/search/trials",
    "sensitivity": "/runs/effects/sensitivity",
    "profile": "/runs/timed/profile",
    "profile-op": f"/runs/timed/profile?op={CONV}",
    "profile-overview": "/runs/timed/overview",
    "graph-timed": f"/runs/timed/graph?op={CONV}&metric=speedup",
    "compare": "/compare?a=coarse&b=fine",
}
SCHEMES: tuple[Literal["dark", "light"], ...] = ("dark", "light")
# What axe finds, and where.
AXE = """async () => (await axe.run(document, { resultTypes: ['violations'] })).violations
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join('; ')}`)"""
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's script."""
    spec = find_spec("axe_playwright_python")
    places = [ROOT / "frontend" / "node_modules" / "axe-core"]
    if spec is not None and spec.submodule_search_locations:
        places.append(Path(spec.submodule_search_locations[0]))
    found = next((place / "axe.min.js" for place in places if (place / "axe.min.js").is_file()), None)
    if found is None:
        pytest.skip("no axe-core here; next step: pip install axe-playwright-python")
    return found.read_text()


def settle(page: Page, name: str) -> None:
    """Wait until a page has what it shows."""
    expect(page.get_by_text("Loading")).to_have_count(0)
    if name.startswith("graph"):
        wait_for_graph(page)
    page.wait_for_function("() => document.fonts.ready.then(() => true)")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_is_accessible(site: Site, rec: str, axe: str, scheme: Literal["dark", "light"]) -> None:
    found: dict[str, list[str]] = {}
    with site.visit(color_scheme=scheme) as page:
        page.evaluate(axe)
        for name, route in PAGES.items():
            page.goto(f"{site.server.url}#{route}")
            settle(page, name)
            found[name] = page.evaluate(AXE)
        page.goto(f"{site.server.url}#/")
        page.get_by_test_id("edit-run").first.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        found["edit"] = page.evaluate(AXE)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert len(found) == len(PAGES) + 1


@pytest.mark.parametrize("width", [1280, 1920])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_fits_the_window_in_both_themes(
    site: Site, rec: str, scheme: Literal["dark", "light"], width: int
) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with site.visit(color_scheme=scheme, viewport={"width": width, "height": width * 5 // 8}) as page:
        for name, route in PAGES.items():
            page.goto(f"{site.server.url}#{route}")
            settle(page, name)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{name} is {wide} pixels wide"
            red, green, blue = page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
            )
            assert (max(red, green, blue) < 80) == (scheme == "dark"), name
            page.screenshot(path=SCREENSHOTS / f"{name}-{scheme}-{width}.png")


def test_the_theme_is_chosen_and_stays(site: Site) -> None:
    with site.visit(color_scheme="light") as page:
        scheme = "document.documentElement.dataset.mantineColorScheme"
        assert page.evaluate(scheme) == "light"
        page.get_by_test_id("theme").click()
        assert page.evaluate(scheme) == "dark"
        page.reload()
        page.get_by_test_id("theme").wait_for()
        assert page.evaluate(scheme) == "dark"
