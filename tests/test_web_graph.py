"""The graph page in a real browser: groups, the table beside the graph, one selection for all, and an op in full."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from browsing import Site, cells, click_box, edge_colours, is_shown, wait_for_graph, wait_until_centred

SELECTION = "#0b5cd5"
CONV = "/body/conv/Conv"
COLUMNS = {
    "Op": "op", "Type": "op_type", "SQNR dB": "sqnr_db", "SQNR isolated dB": "isolated_sqnr_db",
    "SQNR local dB": "local_sqnr_db", "MSE": "mse", "Min": "reference_min", "Max": "reference_max",
    "Clipped": "clipped_fraction", "Dtype": "dtype", "Remark": "remark", "Kurtosis": "reference_kurtosis",
}  # fmt: skip


def closed_groups(page: Page, graph: dict[str, Any]) -> list[int]:
    """The groups that are shown and hide what is in them."""
    first: dict[int, str] = {}
    for node, group in enumerate(graph["nodes"]["group"]):
        first.setdefault(group, graph["nodes"]["name"][node])
    return [g for g in first if g >= 0 and is_shown(page, f"#{g}") and not is_shown(page, first[g])]


def ops_of(graph: dict[str, Any], group: int) -> list[str]:
    """The ops directly in a group."""
    nodes = graph["nodes"]
    return [name for name, owner in zip(nodes["name"], nodes["group"], strict=True) if owner == group]


def saved(page: Page, button: Locator) -> Path:
    """The file that a click saves."""
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path())


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def same(text: str, value: Any) -> bool:
    """Whether a field of a CSV file is what the API says."""
    if value is None:
        return text == ""
    return text == value if isinstance(value, str) and not text.endswith("Infinity") else float(text) == float(value)


def test_a_group_opens_and_closes_where_it_stands(site: Site, rec: str) -> None:
    graph = site.answer(f"runs/{rec}/graphs/reference")
    with site.visit(f"/runs/{rec}/graph") as page:
        wait_for_graph(page)
        page.get_by_test_id("fit").click()
        group = closed_groups(page, graph)[0]
        ops = ops_of(graph, group)
        page.get_by_test_id("outline-item").filter(has_text=graph["groups"]["name"][group].split("/")[-1]).first.click()
        wait_until_centred(page, f"#{group}")
        click_box(page, f"#{group}")
        page.wait_for_function("(name) => window.quantscope.boxOf(name) !== null", arg=ops[0])
        assert all(is_shown(page, op) for op in ops)
        wait_for_graph(page)
        click_box(page, f"#{group}", down=8)
        page.wait_for_function("(name) => window.quantscope.boxOf(name) === null", arg=ops[0])
        page.get_by_test_id("expand-all").click()
        wait_for_graph(page)
        assert all(is_shown(page, op) for op in graph["nodes"]["name"])
        page.get_by_test_id("collapse-all").click()
        page.wait_for_function("(name) => window.quantscope.boxOf(name) === null", arg=ops[0])


def test_the_keyboard_opens_groups_and_walks_along_the_data(site: Site) -> None:
    with site.visit(f"/runs/coarse/graph?op={CONV}") as page:
        wait_for_graph(page)
        canvas = page.get_by_test_id("graph")
        canvas.focus()
        canvas.press("ArrowUp")
        expect(page.get_by_test_id("op-details").get_by_role("heading").first).to_have_text("/stem/relu/Relu")
        canvas.press("Escape")
        expect(page.get_by_test_id("group-details")).to_be_visible()
        canvas.press("Enter")
        page.wait_for_function("() => window.quantscope.boxOf('/stem/relu/Relu') === null")
        canvas.press("Enter")
        page.wait_for_function("() => window.quantscope.boxOf('/stem/relu/Relu') !== null")
        before = page.evaluate("window.quantscope.boxOf('/stem/relu/Relu').width")
        canvas.press("+")
        page.wait_for_function(
            "(width) => window.quantscope.boxOf('/stem/relu/Relu').width > 1.2 * width", arg=before
        )  # fmt: skip


def test_the_pointer_moves_and_zooms_the_graph_and_the_minimap_jumps(site: Site) -> None:
    with site.visit("/runs/coarse/graph") as page:
        wait_for_graph(page)
        box = "window.quantscope.boxOf('#0')"
        view = page.get_by_test_id("graph").bounding_box()
        assert view is not None
        before = page.evaluate(box)
        page.mouse.move(view["x"] + 30, view["y"] + 30)
        page.mouse.down()
        page.mouse.move(view["x"] + 130, view["y"] + 80, steps=3)
        page.mouse.up()
        page.wait_for_function(f"(x) => Math.abs({box}.x - x - 100) < 1", arg=before["x"])
        page.mouse.wheel(0, -300)
        page.wait_for_function(f"(width) => {box}.width > 1.5 * width", arg=before["width"])
        moved = page.evaluate(box)
        page.get_by_test_id("minimap").click(position={"x": 10, "y": 10})
        page.wait_for_function(f"(y) => Math.abs({box}.y - y) > 20", arg=moved["y"])


def test_a_row_that_is_clicked_is_opened_centred_and_highlighted(site: Site, rec: str) -> None:
    with site.visit(f"/runs/{rec}/graph") as page:
        wait_for_graph(page)
        op = cells(page.get_by_test_id("ops-row"), 0)[0]
        assert not is_shown(page, op)
        page.get_by_test_id("ops-row").filter(has_text=op).first.click()
        wait_until_centred(page, op)
        assert SELECTION in edge_colours(page, op)
        expect(page.locator("[data-testid=ops-row][aria-selected=true]")).to_contain_text(op)
        expect(page.locator("[data-testid=outline-item][aria-selected=true]")).to_have_attribute("title", op)
        expect(page.get_by_test_id("op-details").get_by_role("heading").first).to_have_text(op)
        # The highlight goes along with the selection.
        page.get_by_test_id("ops").press("ArrowDown")
        other = cells(page.get_by_test_id("ops-row"), 0)[1]
        wait_until_centred(page, other)
        assert SELECTION in edge_colours(page, other)


def test_the_address_holds_the_selection_and_back_returns_to_it(site: Site, rec: str) -> None:
    names = site.answer(f"runs/{rec}/graphs/reference")["nodes"]["name"]
    first, second = names[200], names[400]
    with site.visit(f"/runs/{rec}/graph?op={first}&metric=mse") as page:
        wait_until_centred(page, first)
        heading = page.get_by_test_id("op-details").get_by_role("heading").first
        expect(heading).to_have_text(first)
        expect(page.get_by_test_id("metric")).to_have_value("MSE")
        page.get_by_test_id("search").fill(second)
        page.get_by_test_id("search").press("Enter")
        wait_until_centred(page, second)
        assert f"op={second}" in page.url
        expect(page).to_have_title(re.compile(re.escape(second)))
        page.go_back()
        expect(heading).to_have_text(first)
        wait_until_centred(page, first)
        page.go_forward()
        expect(heading).to_have_text(second)
        page.reload()
        wait_until_centred(page, second)


def test_search_counts_and_steps_through_what_it_finds(site: Site, rec: str) -> None:
    graph = site.answer(f"runs/{rec}/graphs/reference")
    softmax = [
        name
        for name, op in zip(graph["nodes"]["name"], graph["nodes"]["op"], strict=True)
        if graph["ops"][op] == "Softmax" or "softmax" in name.lower()
    ]
    with site.visit(f"/runs/{rec}/graph") as page:
        wait_for_graph(page)
        page.get_by_test_id("search").fill("softmax")
        expect(page.get_by_test_id("found")).to_have_text(f"0/{len(softmax)}")
        for step, name in enumerate(softmax[:2], 1):
            page.get_by_test_id("search").press("Enter")
            expect(page.get_by_test_id("found")).to_have_text(f"{step}/{len(softmax)}")
            wait_until_centred(page, name)
        page.get_by_test_id("search").fill("no such op")
        expect(page.get_by_test_id("found")).to_have_text("none")


def test_the_quantized_model_is_a_graph_too_and_any_metric_colours_it(site: Site) -> None:
    quantized = site.answer("runs/coarse/graphs/quantized")["nodes"]["name"]
    with site.visit("/runs/coarse/graph?metric=sqnr_db") as page:
        wait_for_graph(page)
        page.get_by_test_id("side").get_by_text("Quantized").click()
        page.get_by_test_id("expand-all").click()
        page.wait_for_function("(name) => window.quantscope.boxOf(name) !== null", arg=quantized[0])
        expect(page.get_by_test_id("legend")).to_contain_text("40.0 dB")
        page.get_by_test_id("metric").click()
        page.get_by_role("option", name="Clipped").click()
        expect(page.get_by_test_id("legend")).not_to_contain_text("dB")
        assert "side=quantized" in page.url
        assert "metric=clipped_fraction" in page.url


def test_a_table_is_filtered_and_sorted(site: Site, rec: str) -> None:
    rows = site.answer(f"runs/{rec}/rows")
    own = [i for i, role in enumerate(rows["role"]) if role == "activation"]
    with site.visit(f"/runs/{rec}/graph") as page:
        count = page.get_by_test_id("ops-count")
        expect(count).to_have_text(f"{len(own)} rows")
        page.get_by_test_id("filter-types").click()
        page.get_by_role("option", name="MatMul").click()
        page.keyboard.press("Escape")
        products = [i for i in own if rows["op_type"][i] == "MatMul"]
        expect(count).to_have_text(f"{len(products)} of {len(own)} rows")
        page.get_by_test_id("filter-threshold").fill("20")
        bad = [i for i in products if rows["sqnr_db"][i] is not None and float(rows["sqnr_db"][i]) <= 20]
        expect(count).to_have_text(f"{len(bad)} of {len(own)} rows")
        page.get_by_test_id("clear-filter").click()
        word = rows["op"][own[5]]
        page.get_by_test_id("filter-words").fill(word)
        wanted = [i for i in own if word in f"{rows['op'][i]} {rows['op_type'][i]} {rows['tensor'][i]}"]
        expect(count).to_have_text(f"{len(wanted)} of {len(own)} rows")
        page.get_by_test_id("clear-filter").click()
        expect(count).to_have_text(f"{len(own)} rows")

        def mse(row: int) -> float:
            return math.inf if rows["mse"][row] is None else float(rows["mse"][row])

        page.get_by_test_id("sort-mse").click()
        table = page.get_by_role("columnheader", name="MSE", exact=True)
        expect(table).to_have_attribute("aria-sort", "ascending")
        best = sorted(own, key=mse)
        assert cells(page.get_by_test_id("ops-row"), 0)[:3] == [rows["op"][i] for i in best[:3]]
        page.get_by_test_id("sort-mse").click()
        expect(page.get_by_role("columnheader", name="MSE")).to_have_attribute("aria-sort", "descending")
        worst = sorted((i for i in own if rows["mse"][i] is not None), key=mse, reverse=True)
        assert cells(page.get_by_test_id("ops-row"), 0)[:3] == [rows["op"][i] for i in worst[:3]]


def test_columns_are_chosen_and_saved_as_csv_as_they_are_shown(site: Site) -> None:
    rows = site.answer("runs/coarse/rows")
    by_op = {op: i for i, op in enumerate(rows["op"]) if rows["role"][i] == "activation"}
    with site.visit("/runs/coarse/graph") as page:
        page.get_by_test_id("choose-columns").click()
        page.get_by_role("checkbox", name="Kurtosis", exact=True).check()
        page.get_by_role("checkbox", name="Type", exact=True).uncheck()
        page.keyboard.press("Escape")
        expect(page.get_by_test_id("sort-reference_kurtosis")).to_be_attached()
        expect(page.get_by_test_id("sort-op_type")).not_to_be_attached()
        page.get_by_test_id("sort-op").click()
        page.get_by_test_id("filter-words").fill("conv")
        expect(page.get_by_test_id("ops-count")).to_have_text("2 of 4 rows")
        table = table_of(saved(page, page.get_by_test_id("save-csv")))
    assert [line["Op"] for line in table] == [CONV, "/stem/conv/Conv"]
    assert "Kurtosis" in table[0]
    assert "Type" not in table[0]
    for line in table:
        for title, text in line.items():
            if title in COLUMNS:
                assert same(text, rows[COLUMNS[title]][by_op[line["Op"]]]), (title, text)


def test_only_bad_ops_stay_bright(site: Site) -> None:
    with site.visit("/runs/fine/graph") as page:
        wait_for_graph(page)
        page.get_by_test_id("only-bad").check(force=True)
        expect(page.get_by_test_id("filter-threshold")).not_to_have_value("")
        expect(page.get_by_test_id("only-bad")).to_be_checked()


def test_an_op_tells_all_about_itself(site: Site) -> None:
    graph = site.answer("runs/coarse/graphs/reference")
    index = graph["nodes"]["name"].index(CONV)
    node = site.answer(f"runs/coarse/graphs/reference/nodes/{index}")
    with site.visit(f"/runs/coarse/graph?op={CONV}") as page:
        details = page.get_by_test_id("op-details")
        expect(details.get_by_role("heading").first).to_have_text(CONV)
        for encoding in node["encodings"]:
            line = details.get_by_role("row").filter(has_text=encoding["role"])
            expect(line).to_contain_text(encoding["dtype"])
            expect(line).to_contain_text(encoding["granularity"])
        expect(details).to_contain_text("pads")
        expect(details).to_contain_text(json.dumps(node["attributes"]["pads"], separators=(",", ":")))
        row = next(i for i in node["rows"] if site.answer(f"runs/coarse/rows/{i}")["row"]["role"] == "activation")
        sqnr = site.answer(f"runs/coarse/rows/{row}")["row"]["sqnr_db"]
        expect(details.get_by_test_id("figure-sqnr_db")).to_have_text(f"{sqnr:.1f} dB".replace("-", "−"))
        expect(details.get_by_test_id("budget")).to_be_visible()
        page.get_by_test_id("ops-row").filter(has_text="/stem/conv/Conv").click()
        expect(details).to_contain_text("PatternConv + Relu")
        # Inputs and outputs lead to the neighbours.
        details.get_by_role("button", name="c1").click()
        expect(details.get_by_role("heading").first).to_have_text("/stem/relu/Relu")


def test_a_histogram_reads_the_values_of_both_models_at_the_pointer(site: Site) -> None:
    index = site.answer("runs/coarse/graphs/reference")["nodes"]["name"].index(CONV)
    node = site.answer(f"runs/coarse/graphs/reference/nodes/{index}")
    details = [site.answer(f"runs/coarse/rows/{row}") for row in node["rows"]]
    histogram = next(d["histogram"] for d in details if d["row"]["role"] == "activation")
    with site.visit(f"/runs/coarse/graph?op={CONV}") as page:
        chart = page.get_by_test_id("histogram").first
        chart.get_by_test_id("save-chart").click()
        table = table_of(saved(page, page.get_by_role("menuitem", name="CSV")))
        factor = 2 ** round(math.log2(len(histogram["reference"]) / len(table)))
        for side in ("reference", "quantized"):
            counts = histogram[side]
            assert [int(line[side]) for line in table] == [
                sum(counts[at : at + factor]) for at in range(0, len(counts), factor)
            ]
        assert float(table[0]["from"]) == histogram["first"]
        canvas = chart.get_by_role("img")
        box = canvas.bounding_box()
        assert box is not None
        readings = set()
        for share in (0.4, 0.5, 0.6):
            canvas.hover(position={"x": share * box["width"], "y": box["height"] / 2})
            text = page.get_by_test_id("histogram-reading").inner_text().replace(",", "").replace("−", "-")
            low, reference, quantized = re.findall(r"^(\S+) …|reference (\d+)|quantized (\d+)", text, re.M)
            bin_ = min(table, key=lambda line: abs(float(line["from"]) - float(low[0])))
            assert (reference[1], quantized[2]) == (bin_["reference"], bin_["quantized"])
            readings.add(low[0])
        assert len(readings) == 3
        canvas.press("ArrowRight")
        expect(page.get_by_test_id("histogram-reading")).to_be_visible()
        for kind, begins in (("PNG", b"\x89PNG"), ("SVG", b"<svg")):
            chart.get_by_test_id("save-chart").click()
            content = saved(page, page.get_by_role("menuitem", name=kind)).read_bytes()
            assert content.startswith(begins)


@pytest.mark.parametrize("view", ["Heat map", "Ridgeline"])
def test_channels_are_seen_one_by_one(site: Site, view: str) -> None:
    rows = site.answer("runs/coarse/rows")
    row = next(i for i, op in enumerate(rows["op"]) if op == "/stem/conv/Conv" and rows["role"][i] == "weight")
    channels = site.answer(f"runs/coarse/rows/{rows['index'][row]}")["channels"]
    by_width = sorted(range(8), key=lambda c: channels["minimum"][c] - channels["maximum"][c])
    with site.visit("/runs/coarse/weights?op=/stem/conv/Conv") as page:
        page.get_by_test_id("channels").get_by_text(view, exact=True).click()
        name = "heatmap" if view == "Heat map" else "ridgeline"
        canvas = page.get_by_test_id(name).get_by_role("img")
        box = canvas.bounding_box()
        assert box is not None
        seen: dict[int, int] = {}
        for y in range(4, int(box["height"]) - 24, 6):
            canvas.hover(position={"x": box["width"] / 2, "y": y})
            reading = page.get_by_test_id(f"{name}-reading")
            if reading.count():
                seen.setdefault(int(reading.inner_text().split()[1]), y)
        assert list(seen) == by_width
        canvas.click(position={"x": box["width"] / 2, "y": seen[by_width[-1]]})
        expect(page.get_by_test_id("histogram").last).to_contain_text(re.compile(rf"Channel {by_width[-1]}\b"))
