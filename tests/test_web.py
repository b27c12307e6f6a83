"""The web app in a real browser: who gets in, the list of runs, and runs that go on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from playwright.sync_api import Locator, Page, expect

from browsing import Site, watched
from conftest import convolutions
from test_runs import SLOW_SAMPLES

SECONDS = 60_000  # A run takes its time on a busy machine.


def line(page: Page, run: str) -> Locator:
    """The line of a run in the list."""
    return page.locator(f'[data-testid=run][data-run="{run}"]')


def names(page: Page) -> list[str]:
    """The runs as they are listed."""
    return [str(run.get_attribute("data-run")) for run in page.get_by_test_id("run").all()]


def percent(share: float) -> str:
    """A share as the app writes it."""
    value = 100 * share
    return "0 %" if value == 0 else f"{value:.{1 if value >= 10 else 2}f} %"


def test_the_link_opens_the_app_and_leaves_no_token_behind(site: Site) -> None:
    with watched(site.browser, site.server.url) as page:
        page.goto(f"{site.server.url}?token={site.server.token}")
        expect(page.get_by_test_id("run").first).to_be_visible()
        assert page.url.rstrip("#/") == site.server.url.rstrip("/")
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert site.server.token not in str(page.context.storage_state()) + page.content()
        page.goto(site.server.url)
        expect(page.get_by_test_id("run").first).to_be_visible()
        assert page.evaluate("document.cookie") == ""


@pytest.mark.parametrize("query", ["", "?token=wrong", "?token="])
def test_nobody_gets_in_without_the_token(site: Site, query: str) -> None:
    with watched(site.browser, site.server.url, expected="401") as page:
        answer = page.goto(f"{site.server.url}{query}")
        assert answer is not None
        assert answer.status == 401
        expect(page.get_by_role("heading")).to_have_text("This page is locked")
        assert page.context.cookies() == []


def test_runs_are_listed_with_what_they_are_and_found_by_words(site: Site) -> None:
    runs = {run["name"]: run for run in site.answer("runs")["runs"]}
    with site.visit() as page:
        coarse = line(page, "coarse")
        expect(coarse).to_contain_text("broken")
        expect(coarse).to_contain_text("int8 weights per tensor")
        expect(coarse).to_contain_text(re.compile("just now|ago"))
        accuracy = runs["coarse"]["accuracy"]
        for side in ("reference", "quantized"):
            expect(coarse).to_contain_text(percent(accuracy[side]))
        page.get_by_test_id("search-runs").fill("per tensor")
        expect(page.get_by_test_id("run")).to_have_count(1)
        page.get_by_test_id("search-runs").fill("no such run")
        expect(page.get_by_text("No run matches “no such run”.")).to_be_visible()
        page.get_by_test_id("search-runs").fill("")
        page.get_by_role("button", name="Size").click()
        by_size = sorted(run["size_bytes"] for run in runs.values())
        assert [runs[name]["size_bytes"] for name in names(page)] == by_size
        page.get_by_role("button", name="Size").click()
        assert [runs[name]["size_bytes"] for name in names(page)] == by_size[::-1]


def test_a_run_is_renamed_tagged_and_deleted_after_a_question(site: Site) -> None:
    (site.folder / "other.qscope").write_bytes((site.folder / "fine.qscope").read_bytes())
    with site.visit() as page:
        line(page, "other").get_by_test_id("edit-run").click()
        page.get_by_test_id("run-name").fill("kept & named")
        tags = page.get_by_test_id("run-tags")
        tags.fill("week 3")
        tags.press("Enter")
        page.get_by_test_id("save-run").click()
        expect(line(page, "kept & named")).to_contain_text("week 3")
        expect(line(page, "other")).to_have_count(0)
        assert (site.folder / "kept & named.qscope").exists()
        assert not (site.folder / "other.qscope").exists()
        page.get_by_test_id("search-runs").fill("week")
        expect(page.get_by_test_id("run")).to_have_count(1)

        page.get_by_label("Choose kept & named").check()
        page.get_by_test_id("delete-runs").click()
        dialog = page.get_by_role("dialog", name="Delete the run “kept & named”?")
        dialog.get_by_role("button", name="Keep").click()
        expect(dialog).to_be_hidden()
        assert (site.folder / "kept & named.qscope").exists()
        page.get_by_test_id("delete-runs").click()
        page.get_by_test_id("confirm-delete").click()
        expect(line(page, "kept & named")).to_have_count(0)
        assert not (site.folder / "kept & named.qscope").exists()


def test_a_name_that_is_taken_is_refused_with_the_reason(site: Site) -> None:
    with site.visit(expected="409") as page:
        line(page, "fine").get_by_test_id("edit-run").click()
        page.get_by_test_id("run-name").fill("coarse")
        page.get_by_test_id("save-run").click()
        expect(page.get_by_role("alert")).to_contain_text("there is a run 'coarse' already")
        assert (site.folder / "fine.qscope").exists()


def test_a_damaged_file_is_listed_with_its_reason(site: Site) -> None:
    (site.folder / "torn.qscope").write_bytes(b"not a run file")
    with site.visit(expected="/api/runs/torn/") as page:
        expect(line(page, "torn")).to_have_attribute("data-status", "damaged")
        expect(line(page, "torn")).to_contain_text("not a run file")
        page.get_by_role("link", name="torn").click()
        expect(page.get_by_role("alert")).to_contain_text("This run file cannot be read")
        (site.folder / "torn.qscope").unlink()
        expect(page.get_by_text("There is no run “torn” here")).to_be_visible()


def begin(folder: Path, run: str) -> subprocess.Popen[bytes]:
    """A real diagnosis whose samples take their time."""
    (folder / "slow_samples.py").write_text(SLOW_SAMPLES)
    onnx.save(convolutions(), str(folder / "model.onnx"))
    command = [
        sys.executable, "-m", "quantscope", "diagnose", "model.onnx", "--data", "slow_samples:batches",
        "--run", f"{run}.qscope", "--calibration-samples", "20", "--samples", "70", "--budget-samples", "0",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_run_appears_fills_and_finishes_without_a_reload(site: Site) -> None:
    # What a run has not got yet is asked for again with its next revision.
    with site.visit(expected="404") as page:
        page.evaluate("window.loadedOnce = true")
        process = begin(site.folder, "live")
        try:
            running = line(page, "live")
            expect(running).to_have_attribute("data-status", "running", timeout=SECONDS)
            expect(running.get_by_test_id("status")).to_contain_text("calibrate", timeout=SECONDS)
            expect(running.get_by_test_id("status")).to_contain_text(
                re.compile(r"compare.* of 70.*/s.*left"), timeout=SECONDS
            )
            page.get_by_role("link", name="live").click()
            page.get_by_test_id("page-graph").click()
            expect(page.get_by_test_id("ops-count")).to_have_text("4 rows", timeout=SECONDS)
            expect(page.get_by_test_id("status")).to_have_text("finished", timeout=SECONDS)
        finally:
            process.kill()
            process.wait()
        page.get_by_test_id("page-overview").click()
        score = site.answer("runs/live")["accuracy"][0]
        assert score["samples"] == 70
        expect(page.get_by_test_id("accuracy-quantized").first).to_have_text(percent(score["quantized"]))
        assert page.evaluate("window.loadedOnce")


def test_a_killed_run_looks_killed_and_says_why(site: Site) -> None:
    with site.visit(expected="404") as page:
        process = begin(site.folder, "doomed")
        try:
            expect(line(page, "doomed").get_by_test_id("status")).to_contain_text("compare", timeout=SECONDS)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        reason = f"its process, {process.pid}, is gone: it was killed, or the machine stopped"
        expect(line(page, "doomed")).to_have_attribute("data-status", "killed")
        expect(line(page, "doomed")).to_contain_text(reason)
        page.get_by_role("link", name="doomed").click()
        expect(page.get_by_role("alert")).to_contain_text(reason)


def test_the_docs_name_tests_that_exist() -> None:
    here = Path(__file__).parent
    tests = set(re.findall(r"^def test_(\w+)", "".join(p.read_text() for p in here.glob("test_web*.py")), re.M))
    features = (here.parent / "docs" / "web.md").read_text().partition("## What Neural Insights")[2]
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+){3,})`", features))
    assert len(named) > 20
    assert named <= tests
