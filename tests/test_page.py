"""The page of a run, used in a real browser."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_pictured
from made_rows import row, table_settings

from cdfss.errors import CdfssError
from cdfss.reports import catalogue, gallery, page, tables
from cdfss.reports.figures import rows, style

ROOT = Path(__file__).parent.parent
TEMPLATES = Path(page.__file__).parent / "templates"
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A page with the tables, one figure and one gallery of four episodes; returns its path.

    Of episode 2 there are no pictures: it is neither the worst, the median nor the best.
    """
    tmp_path = tmp_path_factory.mktemp("page")
    pictured = write_pictured(tmp_path)
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
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gallery, "EPISODES", 3)
        patched.setattr(gallery, "most_moving", lambda rows, variants: {})
        gallery.write(*pictured, {"baseline": "Baseline", "apm_s": "APM-S"}, pictures)
    articles = [tmp_path / f"table{number}.html" for number in catalogue.TABLES]
    page.write(articles, [figure], [pictures], SETTINGS, tmp_path / "index.html", pictured[:1])
    return tmp_path / "index.html"


@pytest.fixture
def made(built, tmp_path):
    """`built` in a folder of the test's own."""
    return shutil.copytree(built.parent, tmp_path / "results") / built.name


def test_links_are_relative_and_there(made):
    text = made.read_text()
    links = re.findall(r'(?:src|href|data-outline)="([^"#]+)"', text)
    assert len(links) == 2 + 3 * (4 * 2 + 1)
    for link in links:
        assert not link.startswith("/")
        assert (made.parent / link).is_file()
    assert "Copied &lt;mask&gt;" in text
    assert "<mask>" not in text


def test_the_page_is_one_file_with_its_own_script_and_style(made):
    text = made.read_text()
    assert "<link" not in text
    assert re.findall(r"<script[^>]* src=", text) == []
    assert text.count("function sortable") == text.count("\n.episode { display: flex") == 1


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def browser(chromium):
    yield chromium
    for context in chromium.contexts:
        context.close()


def opened(browser, path, width=1280, **how):
    """The page in a tab, and the list that its errors go into."""
    tab, errors = browser.new_page(viewport={"width": width, "height": 900}, **how), []
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
    table = tab.locator("#table1 table").nth(1)
    head = table.locator("thead th").nth(1)
    for order in ("descending", "ascending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        assert order in tab.locator("#table1 [role=status]").nth(1).inner_text()
        cells = table.locator("tr.row td:nth-child(2)").all_inner_texts()
        values = [float(cell.split()[0]) for cell in cells]
        assert values == sorted(values, reverse=order == "descending")
        after = first_cells(tab)
        assert after[-1] == "episodes"
        for name in (COPY, "APM-S"):
            assert after[after.index(name) + 1 :][:2] == ["− baseline", changed]
    head.locator("button").press("Enter")
    assert head.get_attribute("aria-sort") is None
    assert first_cells(tab) == shown
    table.locator("thead button").first.press("Enter")
    assert first_cells(tab)[0] == "APM-S"
    tab.locator("#table1 .restore:visible").click()
    assert first_cells(tab) == shown
    assert tab.locator(".restore:visible").count() == 0
    assert errors == []


@pytest.mark.parametrize(
    ("cells", "first_click"),
    [
        (
            ["9.5 [9, 10]", "12.3 [10.1, 14.5]", "1,234", ""],
            ["1,234", "12.3 [10.1, 14.5]", "9.5 [9, 10]", ""],
        ),
        (["−0.5", "+2.25*", "-3", "2.86e-05"], ["+2.25*", "2.86e-05", "−0.5", "-3"]),
        (["< 0.001", "no interval", "0.2"], ["0.2", "< 0.001", "no interval"]),
        (["item 10", "Item 9", "above 3"], ["above 3", "Item 9", "item 10"]),
    ],
)
def test_numbers_sort_as_numbers_whatever_stands_behind_them(browser, cells, first_click):
    tab = browser.new_page()
    lines = "".join(
        f"<tr><td>{number}</td><td>{cell.replace('<', '&lt;')}</td></tr>"
        for number, cell in enumerate(cells)
    )
    head = "<thead><tr><th><button>a</button></th><th><button>b</button></th></tr></thead>"
    tab.set_content(
        f'<div class="scroll"><table class="sortable">{head}<tbody>{lines}</tbody></table></div>'
    )
    tab.add_script_tag(path=TEMPLATES / "sorting.js")
    tab.locator("button", has_text="b").click()
    assert tab.locator("td:nth-child(2)").all_inner_texts() == first_click


def found(tab):
    """Numbers of the episodes in the list, in its order."""
    return [int(text) for text in tab.locator(".hits tbody td:last-child").all_inner_texts()]


def test_every_episode_is_found_by_class_number_iou_and_change_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    form = tab.locator(".controls")
    assert found(tab) == [0, 1, 2, 3]  # worst first
    assert tab.locator(".found").inner_text().startswith("4 of 4 episodes, 3 with pictures")
    form.locator("[name=least]").fill("20")
    form.locator("[name=most]").fill("45")
    assert found(tab) == [2]
    form.locator("[name=most]").fill("")
    assert found(tab) == [2, 3]
    form.locator("[name=pictured]").check()
    assert found(tab) == [3]
    form.get_by_role("button", name="Reset").click()
    tab.wait_for_function("document.querySelectorAll('.hits tbody tr').length === 4")
    form.locator("[name=class]").fill("CLASS 1")
    assert found(tab) == [1, 3]
    form.locator("[name=class]").fill("nothing like it")
    assert found(tab) == []
    assert "No episode" in tab.locator(".found").inner_text()
    assert tab.locator(".walk:visible, .episode:visible").count() == 0
    form.locator("[name=class]").fill("2")
    assert found(tab) == [2]
    form.locator("[name=class]").fill("")
    form.locator("[name=right]").select_option("Ground truth")
    form.locator("[name=sort]").select_option("largest change first")
    assert found(tab) == [0, 1, 2, 3]
    form.locator("[name=sort]").select_option("largest loss on the right first")
    assert found(tab) == [3, 2, 1, 0]
    head = tab.locator(".hits th").nth(3)
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert form.locator("[name=sort]").input_value() == "original"
    assert found(tab) == [0, 1, 2, 3]
    tab.locator(".hits th").last.locator("button").click()
    assert found(tab) == [3, 2, 1, 0]
    form.locator("[name=domain]").select_option("fss1000")
    assert found(tab) == []
    assert errors == []


def test_an_episode_without_pictures_shows_its_iou_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    assert tab.get_by_role("button", name="no pictures").count() == 1
    assert "no pictures" in tab.locator(".hits tbody tr").nth(2).inner_text()
    tab.locator(".hits tbody tr").nth(2).locator("button").press("Enter")
    assert tab.locator(".episode:visible").count() == 0
    assert tab.get_by_label("masks").count() == 1
    assert not tab.get_by_label("masks").is_visible()
    assert tab.locator(".viewer dd").all_inner_texts() == ["IoU 33.3 %", "IoU 35.0 %"]
    tab.get_by_role("button", name="Next ›").click()
    assert tab.locator(".episode:visible h3").inner_text().startswith("lungs, 1-shot, episode 3")
    assert tab.locator(".hits tr[aria-current] td").last.inner_text() == "3"
    assert tab.get_by_role("button", name="Next ›").is_disabled()
    assert errors == []


@pytest.mark.parametrize(("width", "page_of"), [(1280, 50), (390, 10)])
def test_a_long_list_is_shown_in_parts_in_a_browser(made, browser, width, page_of):
    text = made.read_text()
    begin = text.index('id="episodes-data">') + len('id="episodes-data">')
    data, end = json.JSONDecoder().raw_decode(text[begin:])
    (episodes,) = data["lists"]
    for key, value in (("episode", range(4, 70)), ("class", [0] * 66)):
        episodes[key] += value
    for values in episodes["iou"].values():
        values += [9000] * 66
    made.write_text(text[:begin] + json.dumps(data) + text[begin + end :])
    tab, errors = opened(browser, made, width)
    assert found(tab) == list(range(page_of))
    tab.locator(".hits tbody tr").last.locator("button").click()
    tab.get_by_role("button", name="Next ›").click()  # beyond what is shown
    assert len(found(tab)) == min(2 * page_of, 70)
    assert tab.locator(".hits tr[aria-current] td").last.inner_text() == f"{page_of}"
    while tab.locator(".more:visible").count():
        tab.locator(".more").click()
    assert found(tab) == list(range(70))
    assert errors == []


def clips(tab):
    return [
        tab.locator(f".sides .{side}").evaluate("e => getComputedStyle(e).clipPath")
        for side in ("left", "right")
    ]


def test_two_variants_are_compared_by_mouse_finger_and_keyboard_in_a_browser(made, browser):
    tab, errors = opened(browser, made, has_touch=True)
    slider, sides = tab.locator(".compare input"), tab.locator(".sides")
    sources = sides.locator("img").evaluate_all(
        "all => all.map(e => e.getAttribute('src').split('/').pop())"
    )
    assert sources == ["0-query.jpg", "0-by-baseline.png", "0-by-apm_s.png", "0-outline.png"]
    assert tab.locator(".names span").all_inner_texts() == [
        "Baseline, IoU\xa00.0\xa0%",
        "APM-S, IoU\xa01.7\xa0%",
    ]
    assert clips(tab) == ["inset(0px 50% 0px 0px)", "inset(0px 0px 0px 50%)"]
    slider.press("ArrowLeft")
    assert clips(tab) == ["inset(0px 51% 0px 0px)", "inset(0px 0px 0px 49%)"]
    assert slider.get_attribute("aria-valuetext") == "49 % Baseline, 51 % APM-S"
    slider.press("Home")
    assert clips(tab)[0] == "inset(0px 100% 0px 0px)"
    sides.scroll_into_view_if_needed()
    box = sides.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    tab.mouse.down()
    assert slider.input_value() == "25"
    tab.mouse.move(box["x"] + 2 * box["width"], box["y"] + 20)  # holding on outside of the picture
    assert slider.input_value() == "100"
    tab.mouse.up()
    tab.mouse.move(box["x"] + 10, box["y"] + 20)
    assert slider.input_value() == "100"
    tab.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + 20)
    assert slider.input_value() == "75"
    touch = tab.context.new_cdp_session(tab)
    for kind, across in (("Start", 0.75), ("Move", 0.6), ("Move", 0.4)):
        point = {"x": box["x"] + across * box["width"], "y": box["y"] + 20}
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert slider.input_value() == "40"
    # The picture of a variant puts it on the right.
    tab.get_by_role("button", name="Compare ground truth").click()
    assert tab.locator(".sides .right").get_attribute("src").endswith("0-truth.png")
    assert tab.locator("[name=right]").input_value() == ""
    assert tab.locator(".episode:visible figure.right figcaption").inner_text() == "ground truth"
    assert errors == []


def test_masks_of_supports_and_predictions_can_be_lifted_off_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    support = tab.locator(".episode:visible figure", has_text="support 1")
    assert support.locator("img").first.get_attribute("src").endswith("0-support1.jpg")
    assert support.locator(".mask").get_attribute("src").endswith("0-support1.png")
    tab.get_by_label("outline of the truth").uncheck()
    assert tab.locator(".sides .outline:visible").count() == 0
    assert support.locator(".mask").is_visible()
    tab.get_by_label("masks").uncheck()
    assert tab.locator(".episode:visible .mask:visible").count() == 0
    assert errors == []


def test_a_link_to_an_episode_finds_and_shows_it_in_a_browser(made, browser):
    tab, errors = opened(browser, made)
    tab.locator("[name=domain]").select_option("fss1000")
    assert tab.locator(".episode:visible").count() == 0
    tab.evaluate("location.hash = '#episode-lungs-1shot-3'")
    episode = tab.locator("#episode-lungs-1shot-3")
    episode.wait_for(state="visible")
    tab.wait_for_function(
        "document.querySelector('#episode-lungs-1shot-3').getBoundingClientRect().top < 900"
    )
    # What a difference is without one episode leads to that episode; the same link a second time too.
    link = tab.locator("#table1 td a", has_text=" of ").first
    target = link.get_attribute("href").removeprefix("index.html")
    for _ in range(2):
        tab.locator("[name=domain]").select_option("fss1000")
        link.click()
        tab.locator(target).wait_for(state="visible")
        assert found(tab) == [0, 1, 2, 3]
    assert errors == []


def test_all_is_readable_without_a_script(made, browser):
    tab, errors = opened(browser, made, java_script_enabled=False)
    assert tab.locator(".episode:visible").count() == 3
    assert tab.locator(".episode:visible .mask:visible").count() == 3 * 4
    assert tab.locator(".controls:visible, .finder:visible").count() == 0
    assert first_cells(tab)[0] == COPY
    assert errors == []


SMALL = """
selector => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility())
  .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect().height])
  .filter(([, height]) => height < 44)
"""


def test_fingers_can_use_it_on_a_phone(made, browser):
    tab, errors = opened(browser, made, 390, has_touch=True, is_mobile=True)
    targets = (
        "nav a, thead button, .controls select, .controls label, .plain, .switches label, .compare input, "
        ".hits td"
    )
    assert tab.evaluate(SMALL, targets) == []
    tab.locator(".hits tbody tr").nth(3).tap()
    tab.wait_for_function("document.querySelector('.sides').getBoundingClientRect().bottom < innerHeight")
    tab.locator("#table1 thead button").first.tap()
    for state in (None, "2"):
        if state:
            tab.locator("[name=class]").fill(state)  # one without pictures
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert errors == []


def test_a_gallery_of_an_older_version_is_refused_by_name(made):
    path = next(made.parent.glob("x/gallery/*/gallery.json"))
    path.write_text('{"domain": "lungs", "shot": 1, "variants": {}, "episodes": [], "first": "x"}')
    with pytest.raises(CdfssError, match=r"gallery\.json was made by an older version.*-R gallery"):
        page.write([], [], [path], SETTINGS, made)


def test_figures_scroll_in_their_own_box_on_a_phone(made, browser):
    tab, errors = opened(browser, made, 360)
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
    images = tab.locator("img:visible")
    for number in range(images.count()):
        images.nth(number).scroll_into_view_if_needed()
    assert images.count() == 1 + 4 + 4 * 2
    tab.wait_for_function(
        "[...document.images].filter(i => i.checkVisibility()).every(i => i.complete && i.naturalWidth > 0)"
    )
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
