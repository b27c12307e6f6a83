"""The other pages of the web app in a real browser: overview, weights, suggestions, trials, comparison, offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browsing import Site, cells, wait_for_graph, wait_until_centred, watched
from conftest import with_speeds
from test_web import percent
from test_web_graph import CONV, same, saved, table_of

CLIPBOARD = ["clipboard-read", "clipboard-write"]
WEIGHT_COLUMNS = {
    "MSE": "mse",
    **{
        f"{prefix}{name}".capitalize(): f"{side}_{name.lower()}"
        for side, prefix in (("reference", ""), ("quantized", "Quantized "))
        for name in ("min", "max", "mean", "std", "variance")
    },
}


def copied(page: Page) -> str:
    """What is on the clipboard."""
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_the_overview_says_what_was_lost_where_and_with_what(site: Site) -> None:
    run = site.answer("runs/coarse")
    with site.visit("/runs/coarse/overview", permissions=CLIPBOARD) as page:
        accuracy = run["accuracy"][0]
        for side in ("reference", "quantized"):
            expect(page.get_by_test_id(f"accuracy-{side}").first).to_have_text(percent(accuracy[side]))
        expect(page.get_by_test_id("accuracy-ratio").first).to_have_text(f"{100 * accuracy['ratio']:.4g} %")
        (source,) = run["failure_sources"]
        expect(page.get_by_test_id("failure-sources")).to_contain_text(source["op"])
        for count in run["op_types"]:
            cells_ = page.get_by_test_id("coverage").get_by_role("row").filter(has_text=count["op_type"])
            expect(cells_.first).to_contain_text(
                f"{count['op_type']}{count['total']}{count['quantized']}{count['in_float']}"
            )
        page.get_by_test_id("origin").get_by_test_id("copy-command").click()
        assert copied(page) == run["command"]
        page.get_by_test_id("origin").get_by_role("button", name="Copy path").first.click()
        assert copied(page) == run["reference"]["path"]
        page.get_by_test_id("failure-sources").get_by_role("link").click()
        wait_until_centred(page, source["op"])


def test_the_depth_map_leads_to_the_op(site: Site, rec: str) -> None:
    with site.visit(f"/runs/{rec}/overview") as page:
        canvas = page.get_by_test_id("depth-map").get_by_role("img")
        box = canvas.bounding_box()
        assert box is not None
        found = ""
        for x in range(180, int(box["width"]), 25):
            canvas.hover(position={"x": x, "y": 14})
            reading = page.get_by_test_id("depth-map-reading")
            if reading.count():
                found = reading.locator("strong").inner_text()
                canvas.click(position={"x": x, "y": 14})
                break
        assert found
        wait_until_centred(page, found)
        expect(page.get_by_test_id("op-details").get_by_role("heading").first).to_have_text(found)


def test_the_weights_of_both_models_have_all_their_columns(site: Site) -> None:
    rows = site.answer("runs/coarse/rows")
    weights = {op: i for i, op in enumerate(rows["op"]) if rows["role"][i] == "weight"}
    with site.visit("/runs/coarse/weights") as page:
        expect(page.get_by_test_id("weights-count")).to_have_text(f"{len(weights)} rows")
        table = table_of(saved(page, page.get_by_test_id("save-csv")))
        assert {line["Op"] for line in table} == set(weights)
        for line in table:
            for title, column in WEIGHT_COLUMNS.items():
                assert same(line[title], rows[column][weights[line["Op"]]]), (title, line[title])
        page.get_by_test_id("weights-row").filter(has_text=CONV).click()
        expect(page.get_by_test_id("heatmap")).to_be_visible()
        page.get_by_role("link", name="in the graph").click()
        wait_until_centred(page, CONV)


def test_suggestions_are_copied_as_recipe_dictionary_and_command(site: Site) -> None:
    found = site.answer("runs/coarse/suggestions")
    with site.visit("/runs/coarse/suggestions", permissions=CLIPBOARD) as page:
        expect(page.get_by_test_id("suggestion")).to_have_count(len(found["suggestions"]))
        for shown, wanted in zip(page.get_by_test_id("suggestion").all(), found["suggestions"], strict=True):
            expect(shown.get_by_role("heading")).to_have_text(wanted["title"])
            for line in wanted["evidence"]:
                expect(shown).to_contain_text(line)
            shown.get_by_test_id("copy-recipe").click()
            assert tomllib.loads(copied(page)) == tomllib.loads(wanted["recipe_toml"])
            shown.get_by_test_id("copy-op-name-dict").click()
            assert json.loads(copied(page)) == wanted["op_name_dict"]
            shown.get_by_test_id("copy-command").click()
            assert copied(page) == wanted["command"]
        page.get_by_test_id("copy-verify").click()
        assert copied(page) == found["verify"]


def test_a_search_shows_its_trials(site: Site) -> None:
    found = site.answer("runs/search/trials")
    with site.visit() as page:
        page.get_by_role("link", name="search", exact=True).click()
        expect(page.get_by_test_id("trials-row")).to_have_count(len(found["trials"]))
        assert cells(page.get_by_test_id("trials-row"), 1) == [trial["change"] for trial in found["trials"]]
        page.get_by_test_id("trials-row").last.click()
        expect(page.get_by_test_id("trial")).to_contain_text(f"Trial {len(found['trials'])}:")
        expect(page.get_by_test_id("pareto")).to_be_visible()


def test_a_search_that_weighs_time_is_drawn_against_it(site: Site) -> None:
    speedups = with_speeds(site.folder / "search.qscope", site.folder / "timed.qscope")
    with site.visit("/runs/timed/trials") as page:
        rows = page.get_by_test_id("trials-row")
        expect(rows).to_have_count(len(speedups))
        assert cells(rows, 4) == [f"{s:.2f}× ({s - 0.2:.2f} to {s + 0.2:.2f})" for s in speedups]
        assert [float(text.removesuffix(" ms")) for text in cells(rows, 3)] == pytest.approx(
            [20 / speedup for speedup in speedups], rel=0.01
        )
        expect(rows.nth(len(speedups) - 2)).to_contain_text("as fast as the best")
        expect(page.get_by_role("region", name="Accuracy against time")).to_be_visible()
    (site.folder / "timed.qscope").unlink()


def test_a_measurement_shows_what_each_op_does(site: Site) -> None:
    found = site.answer("runs/effects/sensitivity")
    with site.visit("/runs/effects/sensitivity") as page:
        expect(page.get_by_test_id("effects-row")).to_have_count(len(found["rows"]))
        assert {row["op"] for row in found["rows"]} == set(cells(page.get_by_test_id("effects-row"), 1))


def test_two_runs_are_compared_side_by_side(site: Site) -> None:
    found = site.answer("compare?a=coarse&b=fine")
    gains = [d for d in found["difference"]["sqnr_db"] if d is not None]
    with site.visit() as page:
        expect(page.get_by_test_id("compare-runs")).to_be_disabled()
        page.get_by_label("Choose coarse").check()
        page.get_by_label("Choose fine").check()
        page.get_by_test_id("compare-runs").click()
        a, b = (page.get_by_test_id(f"run-{letter}").inner_text().splitlines()[1] for letter in "ab")
        assert {a, b} == {"coarse", "fine"}
        if a == "fine":
            page.get_by_role("button", name="Swap").click()
        expect(page.get_by_test_id("run-a")).to_contain_text("coarse")
        better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
        expect(page.get_by_test_id("tally")).to_contain_text(f"In B {better} tensors are better and {worse} worse")
        expect(page.get_by_test_id("compared-row")).to_have_count(len(found["op"]))
        expect(page.get_by_test_id("compare-picture")).to_be_visible()
        page.get_by_test_id("compared-row").filter(has_text=CONV).first.click()
        page.get_by_role("link", name="open in B").click()
        wait_until_centred(page, CONV)
        assert "/runs/fine/graph" in page.url
        page.go_back()
        expect(page.get_by_test_id("run-a")).to_contain_text("coarse")


@pytest.fixture(scope="module")
def offline(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the file that the command line exports."""
    target = tmp_path_factory.mktemp("offline") / "coarse.html"
    command = [sys.executable, "-m", "quantscope", "export", str(site.folder / "coarse.qscope"), "--html", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target.as_uri()


def test_the_offline_page_is_the_app_from_disk_and_asks_nobody(site: Site, offline: str) -> None:
    row: dict[str, Any] = site.answer("runs/coarse/rows/0")
    asked: list[str] = []
    with watched(site.browser, offline, offline=True) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(offline)
        expect(page.get_by_text("offline page")).to_be_visible()
        expect(page.get_by_test_id("run")).to_have_count(1)
        expect(page.get_by_test_id("delete-runs")).to_have_count(0)
        expect(page.get_by_test_id("edit-run")).to_have_count(0)
        page.get_by_role("link", name="coarse").click()
        expect(page.get_by_test_id("accuracy-quantized").first).to_be_visible()
        page.get_by_test_id("page-graph").click()
        wait_for_graph(page)
        page.get_by_test_id("ops-row").filter(has_text=row["row"]["op"]).first.click()
        wait_until_centred(page, row["row"]["op"])
        sqnr = f"{row['row']['sqnr_db']:.1f} dB".replace("-", "−")
        expect(page.get_by_test_id("figure-sqnr_db")).to_have_text(sqnr)
        expect(page.get_by_test_id("histogram").first).to_be_visible()
        page.get_by_test_id("page-weights").click()
        expect(page.get_by_test_id("weights-count")).to_have_text(re.compile("rows"))
        page.get_by_test_id("page-suggestions").click()
        expect(page.get_by_test_id("suggestion").first).to_be_visible()
        assert table_of_runs(page) == ["coarse"]
    assert {url.split("#")[0] for url in asked if not url.startswith(("data:", "blob:"))} == {offline}


def table_of_runs(page: Page) -> list[str]:
    """The runs that can be chosen in the header."""
    page.get_by_test_id("run-select").click()
    names = page.get_by_role("option").all_inner_texts()
    page.keyboard.press("Escape")
    return names
