"""The page of a run, used in a real browser."""

import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_rows import row, table_settings

from cdfss.reports import catalogue, gallery, page, tables
from cdfss.reports.figures import rows, style

ROOT = Path(__file__).parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COPY = "Copied <mask> of the support, which is a rather long title"
VARIANTS = {
    "copy": {"method": "copy", "title": COPY},
    "baseline": {"title": "Baseline"},
    "apm_s": {"title": "APM-S", "modules": ["apm_s"]},
}
SETTINGS = table_settings(
    VARIANTS, ("lungs", "fss1000"), shots=[1, 5], published=False, title="Demo & more"
)


@pytest.fixture
def made(tmp_path, pictured):
    """A page with six tables, one figure and one gallery; returns its path."""
    generator = np.random.RandomState(0)
    evaluated = pd.DataFrame(
        row(generator, domain, variant, shot, 0, episode)
        for domain in SETTINGS["domains"]
        for variant in VARIANTS
        for shot in (1, 5)
        for episode in range(6)
    )
    made = [
        tables.main_table(evaluated, SETTINGS),
        tables.insertion_table(evaluated, SETTINGS),
        tables.information_table(None, None, SETTINGS),
        tables.similarity_table(None, SETTINGS),
        tables.alternatives_table(evaluated, SETTINGS),
        tables.cost_table(evaluated, SETTINGS),
        tables.transformer_table(evaluated[:0], SETTINGS),
        *(tables.rivals_table(number, evaluated, SETTINGS) for number in (8, 9)),
    ]
    for table in made:
        paths = {
            kind: tmp_path / f"table{table.number}.{kind}"
            for kind in ("md", "csv", "tex", "html", "origin")
        }
        tables.write(table, paths)
    figure = tmp_path / "x" / "figures" / "class_iou.png"
    style.save(rows.class_iou(evaluated, SETTINGS), [figure, figure.with_suffix(".svg")])
    pictures = tmp_path / "x" / "gallery" / "lungs-1shot" / "gallery.json"
    gallery.write(*pictured, {"baseline": "Baseline", "apm_s": "APM-S"}, pictures)
    articles = [tmp_path / f"table{number}.html" for number in catalogue.TABLES]
    page.write(articles, [figure], [pictures], SETTINGS, tmp_path / "index.html", pictured[:1])
    return tmp_path / "index.html"


def test_links_are_relative_and_there(made):
    text = made.read_text()
    links = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert len(links) == 2 + 4 * 4
    for link in links:
        assert not link.startswith("/")
        assert (made.parent / link).is_file()
    assert "Copied &lt;mask&gt;" in text
    assert "<mask>" not in text


@pytest.fixture
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser, path, width=1280):
    """The page in a tab, and the list that its errors go into."""
    tab, errors = browser.new_page(viewport={"width": width, "height": 900}), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("requestfailed", lambda request: errors.append(request.url))
    tab.goto(path.as_uri())
    return tab, errors


def first_cells(tab):
    return tab.locator("#table1 table").nth(1).locator("tbody tr td:first-child").all_inner_texts()


def test_tables_sort_in_a_browser_and_keep_details_with_their_row(made, browser):
    tab, errors = opened(browser, made)
    assert tab.title() == "Demo & more"
    changed = "episodes changed; without one"
    shown = [COPY, "− baseline", changed, "Baseline", "APM-S", "− baseline", changed, "episodes"]
    assert tab.locator("#table1 h3").first.inner_text().startswith("Primary comparison")
    assert first_cells(tab) == shown
    head = tab.locator("#table1 table").nth(1).locator("thead th").nth(1)
    for order in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = tab.locator("#table1 table").nth(1).locator("tr.row td:nth-child(2)").all_inner_texts()
        values = [float(cell.split()[0]) for cell in cells]
        assert values == sorted(values, reverse=order == "descending")
        after = first_cells(tab)
        assert after[-1] == "episodes"
        for name in (COPY, "APM-S"):
            assert after[after.index(name) + 1 :][:2] == ["− baseline", changed]
    tab.locator("#table1 table").nth(1).locator("thead button").first.press("Enter")
    assert first_cells(tab)[0] == COPY
    assert errors == []


def test_episodes_are_chosen_by_domain_shots_and_variant_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    assert tab.locator(".episode:visible").count() == 4
    assert tab.locator('.episode:visible figure[data-variant="apm_s"]:visible').count() == 4
    tab.get_by_label("APM-S", exact=True).uncheck()
    assert tab.locator('figure[data-variant="apm_s"]:visible').count() == 0
    assert tab.locator('figure[data-variant="baseline"]:visible').count() == 4
    tab.locator("input[name=shot][value='5']").check()
    assert tab.locator(".episode:visible").count() == 0
    assert errors == []


def test_a_link_to_an_episode_selects_scrolls_and_marks_it_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    tab.locator("input[name=domain][value=fss1000]").check()
    assert tab.locator(".episode:visible").count() == 0
    tab.evaluate("location.hash = '#episode-lungs-1shot-2'")
    episode = tab.locator("#episode-lungs-1shot-2")
    episode.wait_for(state="visible")
    assert tab.locator("input[name=domain][value=lungs]").is_checked()
    tab.wait_for_function(
        "document.querySelector('#episode-lungs-1shot-2').getBoundingClientRect().top < 900"
    )
    assert episode.evaluate("e => e.matches(':target')")
    # What a difference is without one episode leads to that episode.
    link = tab.locator("#table1 td a", has_text=" of ").first
    target = link.get_attribute("href").removeprefix("index.html")
    tab.locator("input[name=domain][value=fss1000]").check()
    link.click()
    tab.locator(target).wait_for(state="visible")
    assert tab.locator("input[name=domain][value=lungs]").is_checked()
    assert errors == []


def test_figures_scroll_in_their_own_box_on_a_phone(made, browser):
    tab, errors = opened(browser, made, 390)
    image = tab.locator(".figure img").first
    assert image.evaluate("e => e.clientWidth") >= 300
    box = tab.locator(".figure .scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert errors == []


def test_captions_are_escaped_and_their_backticks_are_code():
    assert page._code("the first of `seeds` <b>") == "the first of <code>seeds</code> &lt;b&gt;"


def test_links_to_episodes_that_are_not_shown_are_text():
    link = '<a href="index.html#episode-lungs-1shot-{}">+2.2</a>'
    article = link.format(1) + link.format(9)
    assert page._linked(article, {"episode-lungs-1shot-1"}) == link.format(1) + "+2.2"


@pytest.mark.parametrize("width", [1280, 400])
def test_pictures_load_and_nothing_runs_over_the_edge_in_a_browser(made, browser, width):
    tab, errors = opened(browser, made, width)
    images = tab.locator("img")
    for number in range(images.count()):
        images.nth(number).scroll_into_view_if_needed()
    tab.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    # The first column stays while a table scrolls: it must hide what goes by below it, not all of it.
    first = tab.locator("tbody td:first-child").first
    assert first.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        max(tab.locator("td:first-child").evaluate_all("all => all.map(e => e.offsetWidth)")) <= width / 2
    )
    assert errors == []


def test_captions_are_read_by_the_report_without_complaint():
    from docutils.core import publish_string
    from jinja2 import Template

    template = (ROOT / "workflow" / "report" / "caption.rst").read_text()
    entries = [*catalogue.TABLES.values(), *catalogue.FIGURES.values()]
    for entry in [*entries, catalogue.EPISODE_GRID, catalogue.TRAINING_HISTORY]:
        for caption in (entry.heading, entry.caption):
            text = Template(template).render(snakemake={"params": {"caption": caption}})
            html = publish_string(text, writer="html5", settings_overrides={"halt_level": 2}).decode()
            assert caption.split("|")[0].strip().split("`")[0] in unescape(html)
