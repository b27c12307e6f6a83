"""The profile of a run in a real browser: its page, the way from there to the graph, and the offline page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browsing import Site, cells, click_box, wait_for_graph, wait_until_centred, watched
from test_web_graph import CONV, same, saved, table_of

STEM = "/stem/conv/Conv"
COLUMNS = {
    "Op": "name", "Type": "op_type", "Reference µs": "reference_total_us", "Quantized µs": "quantized_total_us",
    "Speed-up": "speedup", "Added µs": "quantized_added_us", "Share": "quantized_share", "OP run": "quantized_calls",
    "OP defined": "quantized_defined", "Dtype": "quantized_dtype", "Accelerator µs": "quantized_accelerator_us",
    "CPU µs": "quantized_cpu_us",
}  # fmt: skip


def microseconds(us: float | None) -> str:
    """A time as the table writes it."""
    return "–" if us is None else f"{us:,.1f}" if us == 0 or us >= 0.05 else "< 0.1"


def duration(us: float) -> str:
    """A time as the cards write it."""
    value, unit = (us, "µs") if us < 1e3 else (us / 1e3, "ms")
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"


def by_time(found: dict[str, Any]) -> list[str]:
    """The ops of a profile, those that take longest in the quantized model first."""
    ops = found["ops"]
    return [name for _, name in sorted(zip(ops["quantized_total_us"], ops["name"], strict=True), reverse=True)]


def charted(page: Page) -> list[str]:
    """The ops on the chart, from top to bottom."""
    picture = page.get_by_test_id("op-bars").get_by_role("img").get_attribute("aria-label") or ""
    return [part.rpartition(": reference")[0] for part in picture.partition(". ")[2].split("; ") if part]


def test_a_link_opens_the_profile_which_says_how_fast_both_models_are(site: Site) -> None:
    found = site.answer("runs/timed/profile")
    compared = found["latencies"][0]
    faster = compared["speedup"]
    words = f"{faster:.2f}× faster" if compared["low"] > 1 else f"{1 / faster:.2f}× slower"
    if compared["low"] <= 1 <= compared["high"] or abs(faster - 1) < 0.03:
        words = f"about as fast, {faster:.2f}×"
    with site.visit("/runs/timed/profile") as page:
        expect(page.get_by_test_id("verdict")).to_contain_text(words)
        for side in ("reference", "quantized"):
            expect(page.get_by_test_id(f"latency-{side}")).to_contain_text(duration(compared[side]["p50_us"]))
        expect(page.get_by_test_id("reason")).to_have_count(len(found["reasons"]))
        for shown, reason in zip(page.get_by_test_id("reason").all(), found["reasons"], strict=True):
            for part in ("title", "evidence", "change"):
                expect(shown).to_contain_text(reason[part])
        expect(page.get_by_test_id("tried")).to_have_text("tried: 1.25× faster (1.20 to 1.31)")
        expect(page.get_by_test_id("rewritten")).to_contain_text("2.00× faster (1.90 to 2.10)")
        expect(page.get_by_test_id("rewritten")).to_contain_text("folder/faster.onnx")
        for added in found["added"]:
            line = page.get_by_test_id("added").get_by_role("row", name=re.compile(f"^{added['op_type']}"))
            expect(line).to_contain_text(str(added["quantized_count"]))
        for note in found["notes"]:
            expect(page.get_by_test_id("profile-notes")).to_contain_text(note)
        expect(page.get_by_test_id("settings").get_by_role("row")).to_have_count(1 + len(found["latencies"]))
        sums = found["quantized"]["sums"]
        share = f"{100 * sums['kernels_us'] / sums['latency_us']:.1f} %"
        expect(page.get_by_test_id("sums")).to_contain_text(share)
        page.get_by_test_id("reason").first.get_by_role("button", name=found["reasons"][0]["ops"][0]).click()
        expect(page.get_by_test_id("kernels")).to_be_visible()


def test_ops_are_sorted_filtered_and_saved_with_their_times(site: Site) -> None:
    found = site.answer("runs/timed/profile")
    ops = found["ops"]
    with site.visit("/runs/timed/profile") as page:
        rows = page.get_by_test_id("op-times-row")
        expect(rows).to_have_count(len(ops["name"]))
        assert cells(rows, 1) == by_time(found)
        page.get_by_test_id("sort-reference_total_us").click()
        times = sorted((us for us in ops["reference_total_us"] if us is not None), reverse=True)
        assert cells(rows, 3)[: len(times)] == [microseconds(us) for us in times]
        page.get_by_test_id("choose-columns").click()
        for title in ("Accelerator µs", "CPU µs"):
            page.get_by_role("checkbox", name=title, exact=True).check()
        page.keyboard.press("Escape")
        for line in table_of(saved(page, page.get_by_test_id("save-csv"))):
            at = ops["name"].index(line["Op"])
            for title, column in COLUMNS.items():
                assert same(line[title], ops[column][at]), (title, line[title])
        page.get_by_test_id("filter-words").fill("conv body")
        expect(rows).to_have_count(1)
        assert cells(rows, 1) == [CONV]
        page.get_by_test_id("clear-filter").click()
        page.get_by_test_id("filter-types").click()
        page.get_by_role("option", name="MatMul").click()
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("op-times-count")).to_have_text(f"1 of {len(ops['name'])} rows")


def test_ticked_ops_are_on_the_charts_and_show_their_times(site: Site) -> None:
    found = site.answer("runs/timed/profile")
    order = by_time(found)
    with site.visit("/runs/timed/profile") as page:
        page.get_by_test_id("op-times-row").first.wait_for()
        assert charted(page) == order[:10]
        page.get_by_role("checkbox", name=f"{order[0]} on the charts").uncheck()
        expect(page.get_by_test_id("op-bars")).to_contain_text("chosen ops")
        assert charted(page) == order[1:]
        page.get_by_role("checkbox", name=f"{order[0]} on the charts").check()
        assert charted(page) == order
        # By keyboard too: space ticks the selected row.
        page.get_by_test_id("op-times").focus()
        page.keyboard.press("Home")
        expect(page.get_by_test_id("op-times-row").first).to_have_attribute("aria-selected", "true")
        page.keyboard.press("Space")
        expect(page.get_by_role("checkbox", name=f"{order[0]} on the charts")).not_to_be_checked()
        page.get_by_test_id("op-bars").get_by_role("img").hover(position={"x": 250, "y": 60})
        expect(page.get_by_test_id("op-bars-reading")).to_contain_text(order[1])
        expect(page.get_by_test_id("op-bars-reading")).to_contain_text("quantized")
        page.get_by_test_id("op-bars").get_by_test_id("save-chart").click()
        page.get_by_role("menuitem", name="CSV").wait_for()
        lines = table_of(saved(page, page.get_by_role("menuitem", name="CSV")))
        assert [line["op"] for line in lines] == order[1:]


def test_an_op_shows_its_kernels_and_goes_along_to_the_graph_and_back(site: Site) -> None:
    found = site.answer("runs/timed/profile")
    at = found["ops"]["name"].index(STEM)
    kernels = site.answer(f"runs/timed/profile/ops/{at}")
    with site.visit("/runs/timed/profile") as page:
        page.get_by_test_id("op-times-row").filter(has_text=CONV).click()
        page.get_by_test_id("op-times-row").filter(has_text=STEM).click()
        for side in ("reference", "quantized"):
            shown = page.get_by_test_id(f"kernels-{side}")
            for kernel in kernels[side]:
                line = shown.get_by_role("row").filter(has_text=kernel["name"])
                for text in (kernel["op_type"], kernel["inputs"][0], kernel["outputs"][0], microseconds(kernel["us"])):
                    expect(line).to_contain_text(text)
        page.get_by_test_id("page-graph").click()
        wait_until_centred(page, STEM)
        expect(page.get_by_test_id("timing-facts")).to_contain_text("Speed-up")
        expect(page.get_by_test_id("legend")).to_contain_text("Quantized time")
        click_box(page, CONV)
        page.get_by_test_id("page-profile").click()
        expect(page.get_by_test_id("op-times-row").filter(has_text=CONV)).to_have_attribute("aria-selected", "true")
        page.go_back()
        wait_for_graph(page)
        page.go_back()
        page.go_back()
        expect(page.get_by_test_id("op-times-row").filter(has_text=STEM)).to_have_attribute("aria-selected", "true")
        page.go_back()
        expect(page.get_by_test_id("op-times-row").filter(has_text=CONV)).to_have_attribute("aria-selected", "true")


def test_a_link_to_an_op_brings_its_kernels_into_sight(site: Site) -> None:
    with site.visit(f"/runs/timed/profile?op={STEM}") as page:
        expect(page.get_by_test_id("kernels-quantized")).to_be_in_viewport()
        # The page scrolls; what is around it does not.
        expect(page.get_by_test_id("theme")).to_be_in_viewport()


def test_times_colour_the_graph_of_a_diagnosis_too(site: Site) -> None:
    speedup = dict(zip(*(site.answer("runs/fine/profile")["ops"][c] for c in ("name", "speedup")), strict=True))
    with site.visit(f"/runs/fine/graph?op={CONV}&metric=speedup") as page:
        wait_for_graph(page)
        expect(page.get_by_test_id("legend")).to_contain_text("Speed-up")
        item = page.get_by_test_id("outline-item").filter(has_text=CONV.split("/")[-1])
        expect(item.filter(has_text=f"{speedup[CONV]:.2f}×")).to_have_count(1)
        page.get_by_test_id("metric").click()
        page.get_by_role("option", name="Quantized time").click()
        expect(page.get_by_test_id("legend")).to_contain_text("Quantized time")


def test_the_page_is_there_only_where_times_were_measured(site: Site) -> None:
    with site.visit("/runs/coarse/overview") as page:
        expect(page.get_by_test_id("page-weights")).to_be_visible()
        expect(page.get_by_test_id("page-profile")).to_have_count(0)
        page.goto(f"{site.server.url}#/runs/coarse/profile")
        expect(page.get_by_text("This run has no page “Profile”")).to_be_visible()
        page.goto(f"{site.server.url}#/runs/timed/overview")
        expect(page.get_by_test_id("speed-summary")).to_be_visible()
        expect(page.get_by_test_id("accuracy")).to_have_count(0)
        page.get_by_test_id("longest").get_by_role("link").first.click()
        expect(page.get_by_test_id("kernels")).to_be_visible()
        page.goto(f"{site.server.url}#/runs/fine/overview")
        expect(page.get_by_test_id("speed-summary")).to_be_visible()


def test_an_unknown_run_is_not_asked_for(site: Site) -> None:
    asked: list[str] = []
    with site.visit("/") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{site.server.url}#/runs/nobody/graph")
        expect(page.get_by_text("There is no run “nobody” here")).to_be_visible()
    assert not [url for url in asked if "nobody" in url.partition("#")[0]]


@pytest.fixture(scope="module")
def offline(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the offline page of a profile."""
    target = Path(tmp_path_factory.mktemp("offline")) / "timed.html"
    command = [sys.executable, "-m", "quantscope", "export", str(site.folder / "timed.qscope"), "--html", str(target)]
    subprocess.run(command, check=True, capture_output=True)
    return target.as_uri()


def test_the_offline_page_has_the_profile_with_all_kernels(site: Site, offline: str) -> None:
    found = site.answer("runs/timed/profile")
    with watched(site.browser, offline, offline=True) as page:
        page.goto(offline)
        page.get_by_role("link", name="timed").click()
        expect(page.get_by_test_id("verdict")).to_be_visible()
        for index, op in enumerate(found["ops"]["name"]):
            page.get_by_test_id("op-times-row").filter(has_text=op).click()
            kernels = site.answer(f"runs/timed/profile/ops/{index}")["quantized"] or ()
            for kernel in kernels:
                expect(page.get_by_test_id("kernels-quantized")).to_contain_text(kernel["name"])
        page.get_by_test_id("page-graph").click()
        wait_for_graph(page)
        page.get_by_test_id("page-overview").click()
        expect(page.get_by_test_id("longest")).to_be_visible()
