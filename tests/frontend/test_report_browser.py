"""Reports in a browser: they load without an error, layers open, search finds nodes, nodes lead to their kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradloom as gl

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if BROWSER is None or DRIVER is None:
    pytest.skip("chromium and chromedriver are not installed", allow_module_level=True)
selenium = pytest.importorskip("selenium", reason="the extra `test` is not installed")

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,860",
)  # fmt: skip
PATIENCE = 60
"""Seconds after which a page that does not get ready counts as broken."""


def model() -> gl.Model:
    network = gl.Sequential(
        [
            gl.Input((8, 8)),
            gl.layers.Flatten(),
            gl.layers.Dense(16, activation="relu", name="hidden"),
            gl.layers.Dense(4, name="logits"),
        ],
        name="small",
    )
    loss = gl.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return network


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    # Chromium's sandbox refuses to be started by root.
    for flag in (*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model().inspect(batch_size=4).save(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def page(browser: Chrome, path: Path) -> Iterator[Chrome]:
    """The report, freshly opened; nothing that a test does with it may leave an error."""
    browser.get(path.as_uri())
    until(browser, "document.body.hasAttribute('data-ready')")
    yield browser
    assert browser.get_log("browser") == []


def until(browser: Chrome, condition: str) -> None:
    WebDriverWait(browser, PATIENCE, 0.02).until(lambda _: browser.execute_script(f"return Boolean({condition})"))


def find(browser: Chrome, selector: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, selector)


def count(browser: Chrome, selector: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, selector))


def press(browser: Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def open_tab(browser: Chrome, name: str) -> None:
    find(browser, f"#tab-{name}").click()
    until(browser, f"document.querySelector('#tab-{name}').getAttribute('aria-selected') === 'true'")


def test_opens_with_layers_collapsed(page: Chrome) -> None:
    assert find(page, "[role=tab][aria-selected=true]").text == "fused"
    assert count(page, "[data-number]") == 0
    boxes = {box.get_attribute("data-key") for box in page.find_elements(By.CSS_SELECTOR, ".box.layer")}
    assert {"hidden|0", "hidden|1", "hidden|2", "logits|0", "logits|1", "logits|2", "loss|0"} <= boxes


def test_layer_opens_and_closes(page: Chrome) -> None:
    find(page, "[data-key='hidden|0']").click()
    assert count(page, ".frame[data-key='hidden|0']") == 1
    assert "matmul" in [box.text.split("\n")[0] for box in page.find_elements(By.CSS_SELECTOR, "[data-number]")]
    find(page, ".frame[data-key='hidden|0'] .title").find_element(By.XPATH, "..").send_keys(Keys.ENTER)
    assert count(page, "[data-number]") == 0


def test_search_finds_a_node_and_follows_it_into_its_kernel(page: Chrome) -> None:
    press(page, "/")
    press(page, "hidden matmul", Keys.ENTER)
    until(page, "document.querySelector('.box.chosen')")
    first = find(page, ".box.chosen").get_attribute("data-number")
    assert "matmul" in find(page, "#details h2").text
    find(page, "#search").click()
    press(page, Keys.ENTER)
    until(page, f"document.querySelector('.box.chosen').dataset.number !== '{first}'")
    find(page, "#details .kernel h3 .link").click()
    until(page, "document.querySelector('#details [data-code=scheduled] pre').textContent.includes('kernel ')")
    find(page, "#details [data-code=assembly] summary").click()
    until(page, "document.querySelector('#details [data-code=assembly] pre').textContent.includes('ret')")


def test_gradient_node_leads_to_its_forward_node(page: Chrome) -> None:
    find(page, "[data-key='logits|1']").click()
    page.find_elements(By.CSS_SELECTOR, "[data-number]")[0].click()
    title = page.find_element(By.XPATH, "//aside//dt[text()='forward node']/following-sibling::dd[1]//button")
    name = title.text
    title.send_keys(Keys.ENTER)
    until(page, "document.querySelector('#tab-gradient').getAttribute('aria-selected') === 'true'")
    assert find(page, "#details h2").text.startswith(name)


def test_every_tab_shows_something(page: Chrome) -> None:
    names = [tab.text for tab in page.find_elements(By.CSS_SELECTOR, "[role=tab]")]
    assert names == ["layers", "forward", "gradient", "simplified", "fused", "scheduled", "memory", "llvm", "assembly"]
    for name in names:
        open_tab(page, name)
        until(page, "document.querySelector('#panel').textContent.length > 100")


def test_tabs_and_graph_by_keyboard(page: Chrome) -> None:
    find(page, "#tab-fused").send_keys(Keys.ARROW_RIGHT)
    until(page, "document.activeElement.id === 'tab-scheduled'")
    find(page, "#tab-scheduled").send_keys(Keys.ARROW_LEFT)
    until(page, "document.querySelector('.graph')")
    before = find(page, ".graph > g").get_attribute("transform")
    find(page, ".graph").send_keys("+")
    zoomed = find(page, ".graph > g").get_attribute("transform")
    find(page, ".graph").send_keys(Keys.ARROW_LEFT)
    assert len({before, zoomed, find(page, ".graph > g").get_attribute("transform")}) == 3


def test_the_first_tabs_reach_search_stages_and_forms(page: Chrome) -> None:
    reached = []
    for _ in range(3):
        press(page, Keys.TAB)
        reached.append(page.execute_script("return document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["search", "tab-fused", "graph"]


def test_memory_is_told_in_round_numbers(page: Chrome) -> None:
    open_tab(page, "memory")
    until(page, "document.querySelector('.buffer')")
    told = [tick.text for tick in page.find_elements(By.CSS_SELECTOR, ".grid + .tick")]
    assert 3 <= len(told) <= 5 and told[0] == "0 B"
    assert all(number.strip("0") in ("", "1", "2", "4", "5", "6", "8", "15") for number, _ in map(str.split, told)), (
        told
    )


def test_memory_says_what_a_buffer_is(page: Chrome) -> None:
    open_tab(page, "memory")
    until(page, "document.querySelector('.buffer')")
    page.execute_script("document.querySelector('.buffer').focus()")
    assert "made by" in find(page, ".readout").text
    assert count(page, ".peak") == 1


class Measured:
    """What a profile says, with times that are easy to recognize."""

    def __init__(self, title: str) -> None:
        self.title = title

    def json(self) -> dict[str, Any]:
        kernel = {"call": 0, "name": "first", "kernel": "k0", "layers": ["hidden"], "seconds": 0.0025, "flops": 5e6}
        rates = {"bytes": 1e6, "gflops": 2.0, "gbs": 0.4, "bound_share": 0.25}
        layer = {
            "path": "hidden",
            "seconds": 0.0025,
            "forward_seconds": 0.001,
            "gradient_seconds": 0.0015,
            "flops": 5e6,
        }
        return {"kernels": [kernel | rates], "layers": [layer], "wall_seconds": 0.004, "roof": {}}


def test_profile_shows_times(browser: Chrome, tmp_path: Path) -> None:
    inspection = model().inspect(batch_size=4)
    measured: Any = Measured(inspection.title)
    browser.get(inspection.save(tmp_path / "report.html", measured).as_uri())
    until(browser, "document.body.hasAttribute('data-ready')")
    open_tab(browser, "profile")
    until(browser, "document.querySelector('.layer-bars')")
    assert "hidden" in find(browser, ".layer-bars").text
    row = find(browser, "tbody tr").text
    assert all(part in row for part in ("first", "2.50 ms", "100.0 %", "2.00", "0.400", "25 %"))
    find(browser, "tbody .link").click()
    assert "2.50 ms" in find(browser, "#details").text
    assert browser.get_log("browser") == []


def test_nothing_is_wider_than_a_narrow_window(page: Chrome) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    try:
        # The drawing is fitted in the frame after the window is narrow: till then its boxes may be cut off.
        edges = "const [box, graph] = [\"[data-key='hidden|0']\", '.graph'].map(edgesOf)"
        edges_of = "const edgesOf = (selector) => document.querySelector(selector).getBoundingClientRect()"
        inside = "box.width > 0 && graph.left <= box.left && box.right <= graph.right"
        until(page, f"innerWidth === 400 && (() => {{ {edges_of}; {edges}; return {inside}; }})()")
        find(page, "[data-key='hidden|0']").send_keys(Keys.ENTER)
        for name in ("fused", "scheduled", "memory", "assembly"):
            open_tab(page, name)
            assert page.execute_script("return document.documentElement.scrollWidth") <= 400
            if name == "scheduled":
                names = page.find_elements(By.CSS_SELECTOR, "td > .link")
                assert names and all(cell.size["width"] > 100 or cell.size["height"] < 30 for cell in names)
                assert max(row.size["height"] for row in page.find_elements(By.CSS_SELECTOR, "tbody tr")) < 100
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def looks(browser: Chrome, path: Path, pictures: list[str]) -> list[Any]:
    """Size, colour and arrowhead of all that a page with pictures draws."""
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{''.join(pictures)}", encoding="utf-8")
    browser.get(path.as_uri())
    shown = "const s = getComputedStyle(e); return [s.fontSize, s.fill, s.stroke, s.textAnchor]"
    found: list[Any] = browser.execute_script(
        f"return [...document.querySelectorAll('svg :is(text, rect, path)')].map((e) => {{{shown}}})"
    )
    return found


def test_pictures_in_one_page_look_as_they_do_alone(browser: Chrome, tmp_path: Path) -> None:
    network = model()
    inspection = network.inspect(batch_size=4)
    profile = inspection.profile(seconds=1e-3)
    drawn = [inspection.stages[name].svg() for name in ("layers", "forward", "fused")]
    drawn += [inspection.memory.svg(), profile.svg(), profile.roofline_svg()]
    page = tmp_path / "page.html"
    alone = [look for svg in drawn for look in looks(browser, page, [svg])]
    assert len(alone) > 100 and looks(browser, page, drawn) == alone


def test_is_readable_without_scripts(browser: Chrome, path: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(path.as_uri())
        fold = browser.find_element(By.XPATH, "//summary[text()='fused']")
        fold.click()
        assert 'graph "train"' in find(browser, "#text-fused").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
