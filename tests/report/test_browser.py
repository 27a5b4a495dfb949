"""The page in a real browser, Chromium: what it shows and says, sorting, zooming, layout, and that it asks for nothing.

Needs selenium, chromium and chromedriver; ``tox -e browser`` has the first. Nothing is fetched.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import names_in, optional

from xpnet import datasets
from xpnet.backend import Device
from xpnet.cli import main
from xpnet.report import Page

pytestmark = pytest.mark.backends("numpy")
optional("browser")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402

PROGRAMS = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
if absent := [name for name, path in PROGRAMS.items() if path is None]:
    if "browser" in names_in("XPNET_REQUIRE"):
        raise pytest.UsageError(f"the browser was asked for, and there is no {' and no '.join(absent)}")
    pytest.skip(f"no {' and no '.join(absent)} on PATH", allow_module_level=True)

EXAMPLES = Path(__file__).parents[2] / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("the examples are not beside the tests", allow_module_level=True)
sys.path.insert(0, str(EXAMPLES))
import _common  # noqa: E402
import claims  # noqa: E402
import reproduce_report  # noqa: E402

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WIDTHS = {"phone": 390, "desktop": 1280}


class Browser:
    """A headless Chromium with a profile of its own, and what it saw."""

    def __init__(self, profile: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = PROGRAMS["chromium"] or ""
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(executable_path=PROGRAMS["chromedriver"])
        self.driver = webdriver.Chrome(options=options, service=service)

    def open(self, page: Path, screen: str = "desktop", scheme: str = "light") -> None:
        """Open a page, as a screen with a colour scheme shows it."""
        phone = screen == "phone"
        self.tell("Emulation.setDeviceMetricsOverride", width=WIDTHS[screen], height=844 if phone else 900,
                  deviceScaleFactor=1, mobile=phone)
        self.tell("Emulation.setTouchEmulationEnabled", enabled=phone, maxTouchPoints=2)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.asked()
        self.complaints()
        self.driver.get(page.resolve().as_uri())

    def tell(self, command: str, **options: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, options)

    def ask(self, script: str, *arguments: Any) -> Any:
        """Run a line of JavaScript and give what it returns."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def all(self, query: str) -> list[WebElement]:
        """Find elements."""
        return self.driver.find_elements(By.CSS_SELECTOR, query)

    def complaints(self) -> list[str]:
        """Return everything on the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def asked(self) -> list[str]:
        """Return what was requested since the last call, but for files and data in the page."""
        told = [json.loads(entry["message"])["message"]
                for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in told if event["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def until(self, holds: Any) -> None:
        """Wait until something holds: the page draws once a frame."""
        for _ in range(250):
            if holds():
                return
            time.sleep(0.02)
        pytest.fail("what was waited for did not come in 5 seconds")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser, once."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        found = Browser(profile)
        yield found
        found.driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the pages of a run and a sweep, and one with everything that a page can have, and long words."""
    place = tmp_path_factory.mktemp("pages")
    data = datasets.synthetic(train=60, validation=20, test=30)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(datasets, "load", lambda *_, **__: data)
        short = ("--hidden", "4", "--steps", "6", "--evaluate-every", "1", "--l2")
        for name, words in (("train", "0.01"), ("sweep", "1e-3,0.1")):
            assert main([name, *short, words, "--out", str(place / name)]) == 0
            assert main(["report", str(place / name)]) == 0
    long = "x" * 200
    x = list(range(200))
    Page(f"Everything {long}", subtitle=long).heading(f"Table {long}").text(long).table(
        ["name", "value", "holds", long], [
            ["b", 10, True, 1], ["a10", 9.5, False, 2], ["a9", None, None, 3], ["c", float("nan"), True, 4],
            ["d", float("-inf"), False, 5], [long, 1e-7, True, 6]], caption="values").heading("Chart").chart(
        {"line": (x, [0.1 + v / 10 for v in x]), long: (x, [None if v % 50 == 7 else 20 - v / 20 for v in x])},
        caption="chart", x_label="update", y_label="value").chart(
        {"steep": (x, [10.0 ** (-v / 20) for v in x])}, caption="steep", x_label="update", y_label="value", log_y=True,
    ).write(place / "everything.html")
    job = _common.Job(data, place, True, Device(), 0, 1)
    results = _common.describe(job)
    for part in reproduce_report.PARTS.values():
        results |= part(job)
    results["claims"] = claims.judge(results)
    reproduce_report.page(job, results).write(place / "examples.html")
    return {"examples": place / "examples.html", "run": place / "train" / "report.html",
            "sweep": place / "sweep" / "report.html",
            "everything": place / "everything.html"}


NAMES = ("run", "sweep", "examples", "everything")

# Layout ---------------------------------------------------------------------------------------------------------------

BEYOND = """[...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll, .sr, svg") &&
    (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1))
    .map((e) => e.outerHTML)"""
CONTRAST = """[...document.querySelectorAll("h1, h2, p, a, th button, td, caption, figcaption, output, .legend span")]
    .filter((e) => e.textContent.trim() && !e.closest(".sr") && !e.matches(".sr")).map((e) => {
      const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      let under = e;
      while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
      const [a, b] = [light(getComputedStyle(e).color), light(getComputedStyle(under).backgroundColor)];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)];
    })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", list(WIDTHS))
@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_can_be_read(
    name: str, screen: str, scheme: str, browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages[name], screen, scheme)
    assert browser.ask("document.documentElement.scrollWidth") <= WIDTHS[screen] == browser.ask("innerWidth")
    assert browser.ask(BEYOND) == []
    contrasts = browser.ask(CONTRAST)
    assert len(contrasts) > 20
    assert min(contrasts)[0] >= 4.5, min(contrasts)
    back = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
    assert all(size["height"] >= 24 for size in (button.size for button in browser.all("button")) if size["height"])
    assert browser.ask("Math.min(...[...document.querySelectorAll('p, td, button, svg text')]"
                       ".map((e) => parseFloat(getComputedStyle(e).fontSize)))") >= 12
    for svg in browser.all(".chart > svg"):
        assert svg.size["width"] <= WIDTHS[screen]
        assert svg.size["height"] >= 200
        assert svg.find_elements(By.CSS_SELECTOR, "path")
    assert browser.complaints() == []
    assert browser.asked() == []


def test_the_checks_can_fail(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(
        "<!DOCTYPE html><link rel=icon href='data:,'>"
        "<p style='width: 3000px; color: #999; background: #fff'>wide and pale</p>"
        "<img src='http://127.0.0.1:9/a.png'><script>throw new Error('thrown')</script>", "utf-8")
    browser.open(tmp_path / "bad.html")
    assert browser.ask("document.documentElement.scrollWidth") > 1280
    assert len(browser.ask(BEYOND)) == 1
    assert min(browser.ask(CONTRAST))[0] < 4.5
    assert any("thrown" in line for line in browser.complaints())
    assert browser.asked() == ["http://127.0.0.1:9/a.png"]


def test_what_the_page_of_a_run_says(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"])
    assert browser.driver.title == "train: a training run"
    links = browser.all("nav a")
    assert [link.text for link in links] == [heading.text for heading in browser.all("h2")]
    links[-1].click()
    assert browser.ask("document.querySelector('h2:last-of-type').getBoundingClientRect().top < innerHeight")
    assert all(browser.ask("[...document.images].map((image) => image.naturalWidth > 0 && image.alt !== '')"))
    assert browser.complaints() == []


def test_the_page_of_the_examples_has_all_its_parts(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["examples"])
    parts = [heading.text.partition(":")[0] for heading in browser.all("h2")]
    assert parts == ["Claims", "Table 1", "Figures 1 to 4", "Table 2", "Figures 5 to 7", "How it was made"]
    assert len(browser.all("tbody tr")) > 60
    assert len(browser.all(".chart path")) > 4 * 4
    assert len(browser.all("img")) == 5
    assert not [head.text for head in browser.all("th") if "_" in head.text]


def test_pictures_fit_a_phone_and_open_at_full_size(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], "phone")
    wide = "[...document.images].map((e) => e.getBoundingClientRect().width)"
    button, image = browser.all(".size")[1], browser.all("img")[1]
    browser.until(button.is_displayed)
    assert max(browser.ask(wide)) <= WIDTHS["phone"]
    button.click()
    assert browser.ask(wide)[1] == browser.ask("document.images[1].naturalWidth") > WIDTHS["phone"]
    assert button.text == "Fit to the page"
    assert browser.ask("document.documentElement.scrollWidth") == WIDTHS["phone"]  # the picture scrolls, not the page
    image.click()
    assert browser.ask(wide)[1] <= WIDTHS["phone"]
    browser.open(pages["run"])
    assert not [button for button in browser.all(".size") if button.is_displayed()]
    assert browser.complaints() == []


def test_no_picture_glares_in_the_dark(browser: Browser, pages: dict[str, Path]) -> None:
    looks = "[...document.images].map((e) => [e.className, getComputedStyle(e).filter.split('(')[0]])"
    for scheme, drawing, other in (("dark", "invert", "brightness"), ("light", "none", "none")):
        browser.open(pages["run"], scheme=scheme)
        assert browser.ask(looks) == [["", other], ["drawing", drawing], ["", other]]


def test_long_texts_are_cards_on_a_phone_and_columns_elsewhere(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["examples"], "phone")
    beyond = """[...document.querySelectorAll(".cards td")]
        .filter((e) => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > e.clientWidth).length"""
    assert browser.ask(beyond) == 0
    assert len(browser.all(".cards td")) > 50
    same = "new Set([...document.querySelector('.cards tbody tr').cells].map((e) => Math.round(e[arguments[0]]))).size"
    assert browser.ask(same, "offsetLeft") == 1
    browser.open(pages["examples"])
    assert browser.ask(same, "offsetTop") == 1


def test_a_sweeps_table_and_legend_fit_a_laptop(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sweep"])
    assert browser.ask("document.querySelector('table').parentElement.scrollWidth"
                       " - document.querySelector('table').parentElement.clientWidth") == 0
    assert len({button.size["width"] for button in browser.all(".legend button")}) == 1


def test_the_hint_is_given_once_and_a_rate_starts_at_zero(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"])
    assert [bool(output.text) for output in browser.all("output")] == [True, False, False]
    assert browser.ask("[...arguments[0].querySelectorAll('text[text-anchor=end]')].map((e) => e.textContent)[0]",
                       Chart(browser, 2).svg) == "0"


def test_a_command_does_not_break(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], "phone")
    assert browser.ask("document.querySelector('code').getClientRects().length") == 1


@pytest.mark.parametrize("name", NAMES)
def test_everything_has_a_name_for_those_who_listen(name: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages[name])
    nodes = browser.tell("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "image", "region", "navigation", "table", "group", "columnheader", "heading"}
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert {role for role, _ in seen} >= {"button", "link", "image", "region", "table", "columnheader", "heading"}
    assert [node for node in seen if node[0] in named and not node[1].strip() and node[0] != "table"] == []
    assert browser.ask("[...document.querySelectorAll('h1, h2')].map((e) => e.tagName)")[:2] == ["H1", "H2"]


def test_the_theme_is_the_systems_until_it_is_chosen(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["run"], scheme="dark")
    dark, theme = browser.ask("getComputedStyle(document.body).backgroundColor"), browser.all("#theme")[0]
    assert "Light" in theme.text
    theme.click()
    assert "Dark" in theme.text
    assert browser.ask("getComputedStyle(document.body).backgroundColor") != dark
    theme.click()
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == dark


# Tables ---------------------------------------------------------------------------------------------------------------


def column(browser: Browser, index: int) -> list[str]:
    """Return the texts of a column of the first table."""
    rows = "[...document.querySelector('table').tBodies[0].rows]"
    return [str(text) for text in browser.ask(f"{rows}.map((row) => row.cells[arguments[0]].textContent)", index)]


def orders(browser: Browser) -> list[str]:
    return [str(head.get_attribute("aria-sort")) for head in browser.all("table:first-of-type th")][:3]


@pytest.mark.parametrize("how", ["click", "Enter", "Space", "tap"])
def test_a_table_is_sorted_by_its_headings(how: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"], "phone" if how == "tap" else "desktop")
    names, values, holds, _ = browser.all("th button")

    def press(button: WebElement) -> None:
        if how == "click":
            button.click()
        elif how == "tap":
            browser.ask("arguments[0].scrollIntoView({block: 'center', inline: 'start'})", button)
            box = browser.ask("arguments[0].getBoundingClientRect().toJSON()", button)
            point = {"x": box["left"] + 20, "y": box["top"] + 10}
            browser.tell("Input.dispatchTouchEvent", type="touchStart", touchPoints=[point])
            browser.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        else:
            browser.ask("arguments[0].focus()", button)
            ActionChains(browser.driver).send_keys(Keys.ENTER if how == "Enter" else Keys.SPACE).perform()

    assert orders(browser) == ["none", "none", "none"]
    press(values)
    browser.until(lambda: orders(browser) == ["none", "ascending", "none"])
    assert column(browser, 1) == ["-inf", "1e-07", "9.5", "10", "\N{EN DASH}", "nan"]  # what is no number comes last
    press(values)
    browser.until(lambda: orders(browser) == ["none", "descending", "none"])
    assert column(browser, 1) == ["10", "9.5", "1e-07", "-inf", "\N{EN DASH}", "nan"]
    press(names)
    browser.until(lambda: orders(browser) == ["ascending", "none", "none"])
    assert column(browser, 0)[:4] == ["a9", "a10", "b", "c"]
    press(holds)
    browser.until(lambda: orders(browser) == ["none", "none", "ascending"])
    assert column(browser, 2) == ["✗does not hold"] * 2 + ["✓holds"] * 3 + ["\N{EN DASH}"]
    assert browser.complaints() == []


# Charts ---------------------------------------------------------------------------------------------------------------


class Chart:
    """A chart on the open page."""

    def __init__(self, browser: Browser, index: int = 0) -> None:
        self.browser, self.figure = browser, browser.all(".chart")[index]
        self.svg, self.reset = (self.figure.find_element(By.CSS_SELECTOR, q) for q in ("svg", ".reset"))
        browser.ask("arguments[0].scrollIntoView({block: 'center'})", self.svg)

    def range(self) -> tuple[float, float]:
        """Return the first and the last update that the axis names."""
        texts = self.browser.ask("[...arguments[0].querySelectorAll('text[text-anchor=middle]')]"
                                 ".map((e) => e.textContent)", self.svg)
        ticks = [float(text) for text in texts[:-2]]
        return ticks[0], ticks[-1]

    def drag(self, start: float, end: float, down: int = 0) -> None:
        """Drag the mouse from one share of the width to another."""
        width = self.svg.size["width"]
        ActionChains(self.browser.driver).move_to_element_with_offset(
            self.svg, round((start - 0.5) * width), -20).click_and_hold().move_by_offset(
            round((end - start) * width), down).release().perform()

    def touch(self, *tracks: tuple[float, float]) -> None:
        """Move fingers, each from one share of the width to another."""
        box = self.browser.ask("arguments[0].getBoundingClientRect().toJSON()", self.svg)
        y = box["top"] + box["height"] / 2

        def points(share: float) -> list[dict[str, float]]:
            return [{"x": box["left"] + box["width"] * (a + (b - a) * share), "y": y, "id": i}
                    for i, (a, b) in enumerate(tracks)]

        self.browser.tell("Input.dispatchTouchEvent", type="touchStart", touchPoints=points(0))
        for share in (0.25, 0.5, 0.75, 1.0):
            self.browser.tell("Input.dispatchTouchEvent", type="touchMove", touchPoints=points(share))
        self.browser.tell("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def zoomed(self) -> bool:
        """Tell whether it shows a part: then there is a button that goes back."""
        return self.reset.is_displayed()


@pytest.mark.parametrize("back", ["button", "double click", "Escape"])
def test_dragging_zooms_and_there_is_a_way_back(back: str, browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    chart = Chart(browser)
    whole = chart.range()
    assert whole == (0, 180)
    assert not chart.zoomed()
    chart.drag(0.4, 0.6)
    browser.until(chart.zoomed)
    low, high = chart.range()
    assert 60 < low < high < 130
    if back == "button":
        chart.reset.click()
    elif back == "double click":
        ActionChains(browser.driver).double_click(chart.svg).perform()
    else:
        ActionChains(browser.driver).send_keys(Keys.ESCAPE).perform()
    browser.until(lambda: not chart.zoomed())
    assert chart.range() == whole
    assert browser.complaints() == []


def test_a_box_zooms_both_axes_and_the_other_chart_stays(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    other, chart = Chart(browser, 1), Chart(browser)
    before = other.range()
    values = "[...arguments[0].querySelectorAll('text[text-anchor=end]')].map((e) => Number(e.textContent))"
    whole = browser.ask(values, chart.svg)
    chart.drag(0.4, 0.6, down=60)
    browser.until(chart.zoomed)
    part = browser.ask(values, chart.svg)
    assert max(part) - min(part) < 0.5 * (max(whole) - min(whole))
    assert other.range() == before


def test_keys_zoom_and_read(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    chart = Chart(browser)
    browser.ask("arguments[0].focus()", chart.svg)
    ActionChains(browser.driver).send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    output = chart.figure.find_element(By.CSS_SELECTOR, "output")
    browser.until(lambda: "update: 2" in output.text)
    assert [value.text for value in chart.figure.find_elements(By.CSS_SELECTOR, ".legend b")] == ["0.3", "19.9"]
    for _ in range(5):
        ActionChains(browser.driver).send_keys(Keys.ARROW_RIGHT).perform()
    browser.until(lambda: "update: 7" in output.text)
    assert chart.figure.find_elements(By.CSS_SELECTOR, ".legend b")[1].text == "no value"
    ActionChains(browser.driver).send_keys("+", "+").perform()
    browser.until(chart.zoomed)
    assert chart.range()[1] < 150
    ActionChains(browser.driver).send_keys("-", "-", "-").perform()
    browser.until(lambda: not chart.zoomed())


def test_the_mouse_reads_and_hides_lines(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    chart = Chart(browser)
    ActionChains(browser.driver).move_to_element(chart.svg).perform()
    output = chart.figure.find_element(By.CSS_SELECTOR, "output")
    browser.until(lambda: output.text.startswith("update: "))
    first = chart.figure.find_element(By.CSS_SELECTOR, ".legend button")
    count = len(chart.svg.find_elements(By.CSS_SELECTOR, "path"))
    first.click()
    browser.until(lambda: len(chart.svg.find_elements(By.CSS_SELECTOR, "path")) == count - 1)
    assert first.get_attribute("aria-pressed") == "false"


def test_the_wheel_zooms_with_control_only(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    chart = Chart(browser)
    box = browser.ask("arguments[0].getBoundingClientRect().toJSON()", chart.svg)
    place = {"x": box["left"] + box["width"] / 2, "y": box["top"] + box["height"] / 2}
    browser.tell("Input.dispatchMouseEvent", type="mouseWheel", **place, deltaX=0, deltaY=-300, modifiers=2)
    browser.until(chart.zoomed)
    chart.reset.click()
    browser.until(lambda: not chart.zoomed())
    before = browser.ask("scrollY")
    browser.tell("Input.dispatchMouseEvent", type="mouseWheel", **place, deltaX=0, deltaY=-300)
    browser.until(lambda: browser.ask("scrollY") != before)
    assert not chart.zoomed()


def test_fingers_zoom(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"], "phone")
    chart = Chart(browser)
    whole = chart.range()
    chart.touch((0.4, 0.8))
    browser.until(chart.zoomed)
    assert chart.range()[0] > whole[0]
    chart.reset.click()
    browser.until(lambda: not chart.zoomed())
    chart.touch((0.5, 0.3), (0.6, 0.9))  # two fingers move apart
    browser.until(chart.zoomed)
    low, high = chart.range()
    assert 0 < low < high < 199
    assert browser.complaints() == []


def test_a_logarithmic_axis_names_powers(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["everything"])
    texts = browser.ask("[...arguments[0].querySelectorAll('text[text-anchor=end]')].map((e) => Number(e.textContent))",
                        Chart(browser, 1).svg)
    assert len(texts) > 3
    assert len({round(a / b, 6) for a, b in itertools.pairwise(texts)}) == 1
