"""The report and the flame graphs in a real browser: Debian's Chromium, without a network."""

import re
import shutil
from pathlib import Path

import pytest

from setup.bootstrap import ROOT
from tests.harness.commands import lab

ALONE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PAPER = {"width": 718, "height": 1047}  # A4 without its margins, at 96 dots per inch

pytestmark = [pytest.mark.slow, pytest.mark.privileged, pytest.mark.needs("chromium")]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory) -> Path:
    """A real run with profiles, the committed one: its report has all that a report can have."""
    directory = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(ROOT / "results" / "reference" / "profile", directory)
    done = lab("report", str(directory))
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright  # not in the image, as Chromium is not

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=ALONE)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, request):
    """A page that must not ask any host for anything, nor complain."""
    options = getattr(request, "param", {})
    context = chromium.new_context(**options)
    page, wrong = context.new_page(), []
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong


SCREENS = [
    pytest.param({"color_scheme": scheme, "viewport": size}, id=f"{scheme}, {name}")
    for scheme in ("light", "dark")
    for name, size in (("desktop", DESKTOP), ("phone", PHONE))
]


@pytest.mark.parametrize("page", SCREENS, indirect=True)
def test_the_report_fits_the_screen_and_shows_all_its_figures(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    sizes = page.eval_on_selector_all(
        "figure img", "all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) == 3 and min(sizes) > 0
    assert page.locator("h1").all_inner_texts() == ["What Fastsocket changes on this machine"]


@pytest.mark.parametrize("page", SCREENS, indirect=True)
def test_text_can_be_read_on_its_background(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    ink, paper = (
        lightness(page.evaluate(f"getComputedStyle(document.body).{what}")) for what in ("color", "backgroundColor")
    )
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (paper < 60 and ink > 200) if dark else (paper > 230 and ink < 60)


def lightness(colour: str) -> float:
    """The mean of red, green and blue, 0 to 255, of "rgb(…)"."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_a_flame_graph_is_searched_and_zoomed(page, run_directory):
    page.goto((run_directory / "figures" / "flame-haproxy-base.svg").as_uri())
    said = page.locator("#said")
    page.evaluate("search('^tcp_')")
    assert page.locator("g.found").count() > 3
    assert 0 < float(re.search(r"in ([\d.]+) %", said.text_content())[1]) < 100
    whole = page.locator("g >> visible=true").count()
    page.locator("g", has=page.locator("title", has_text="haproxy:")).first.dispatch_event("click")
    assert page.locator("g >> visible=true").count() < whole
    page.locator("#reset").dispatch_event("click")
    assert page.locator("g >> visible=true").count() == whole


def test_a_flame_graph_opens_inside_the_report(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    page.locator("details.flame summary").first.click()
    inside = page.frame_locator("details.flame[open] iframe")
    inside.locator("#reset").wait_for()
    assert inside.locator("g").count() > 100
    page.set_viewport_size(PHONE)
    assert page.locator("details.flame[open] iframe").bounding_box()["width"] > 700  # too small to read as wide as it
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_what_scrolls_has_a_name_and_each_id_is_there_once(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    page.set_viewport_size(PHONE)
    scrolling = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1"
        " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.getAttribute('aria-label') || '')"
    )
    assert scrolling and all(scrolling)
    ids = page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", [pytest.param({"viewport": DESKTOP}, id="desktop")], indirect=True)
def test_the_contents_stand_beside_the_text(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    assert page.evaluate(
        "document.querySelector('nav').getBoundingClientRect().right"
        " <= document.querySelector('main').getBoundingClientRect().left"
    )


@pytest.mark.parametrize("page", [pytest.param({"viewport": PAPER}, id="A4")], indirect=True)
def test_printed_tables_fit_the_paper(page, run_directory):
    page.emulate_media(media="print")
    page.goto((run_directory / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.scrollWidth <= t.parentNode.clientWidth)"
    )


@pytest.mark.parametrize("page", [pytest.param({"color_scheme": "dark"}, id="dark")], indirect=True)
def test_pictures_are_dark_where_the_page_is(page, run_directory):
    page.goto((run_directory / "report.html").as_uri())
    filters = page.eval_on_selector_all("figure img, .flame iframe", "all => all.map(i => getComputedStyle(i).filter)")
    assert len(filters) == 5 and all(said.startswith("invert") for said in filters)
