"""Static pages: one per table, and the whole run as results/index.html. No server, no torch."""

import json
import os
import re
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape
from PIL import Image

from cdfss.errors import CdfssError, again
from cdfss.reports import catalogue, prepared
from cdfss.reports.catalogue import words
from cdfss.running import provenance
from cdfss.running.files import replacing

BEGIN, END = '<article class="table"', "</article>"
ORIGIN = '<script type="application/json" class="origin">'


def _render(**values) -> str:
    environment = Environment(
        loader=PackageLoader("cdfss.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"code": _code, "words": words}
    empty = {
        "table": None,
        "articles": [],
        "figures": [],
        "galleries": [],
        "domains": {},
        "shots": [],
        "data": [],
        "found": "",
        "sources": 1,
        "compared": None,
    }

    def own(name):
        """A file of ours beside page.html as it is, so that the page is one file."""
        return Markup(environment.loader.get_source(environment, name)[0])

    values = empty | {"summary": ""} | values
    functions = {"groups": _groups, "in_words": provenance.in_words, "signed": _signed, "own": own}
    return environment.get_template("page.html").render(**functions, **values)


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _code(text: str) -> Markup:
    """Text of ours as HTML: what stands in `backticks` is code, all else is escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def anchor_of(domain: str, shot: int, episode: int) -> str:
    """Where an episode's pictures are on the page."""
    return f"episode-{domain}-{shot}shot-{episode}"


def _linked(article: Markup, anchors: set[str]) -> Markup:
    """A table in which links to episodes that the page does not show are text."""

    def kept(link: re.Match) -> str:
        return link[0] if link[1] in anchors else link[2]

    return Markup(re.sub(r'<a href="index\.html#(episode-[^"]+)">(.*?)</a>', kept, article))


def _groups(section) -> list[list[dict]]:
    """Lines of a section with their roles, details together with their row."""
    groups: list[list[dict]] = []
    for cells, role in zip(section.lines, section.roles, strict=True):
        line = {"cells": cells, "role": role}
        if role == "detail":
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def of_table(table) -> str:
    """A `tables.Table` as a page of its own, whose columns sort."""
    return _render(title=table.title, table=table)


def _article(path: str | Path) -> tuple[Markup, dict]:
    """The table of a page that `of_table` made, and its origin.

    Raises:
        CdfssError: when the file is not whole.
    """
    try:
        text = Path(path).read_text("utf-8")
        article = text[text.index(BEGIN) : text.index(END) + len(END)]
        origin = article[article.index(ORIGIN) + len(ORIGIN) :]
        return Markup(article), json.loads(origin[: origin.index("</script>")])
    except (OSError, ValueError) as error:
        raise provenance.damaged(path, error) from error


def _figure(path: Path) -> tuple[dict, tuple[int, int]]:
    """What `figures.style.save` says in a PNG file, empty where nothing; width and height in pixels."""
    try:
        with Image.open(path) as image:
            return json.loads(image.text.get("Comment", "{}")), image.size
    except (OSError, ValueError, SyntaxError, AttributeError) as error:
        raise provenance.damaged(path, error) from error


def _found(galleries: list[dict], domains: dict[str, str]) -> dict:
    """What the page's script finds episodes in."""
    lists = [{"domain": entry["domain"], "shot": entry["shot"], **entry["list"]} for entry in galleries]
    return {"variants": galleries[0]["variants"], "domains": domains, "lists": lists} if galleries else {}


def _compared(galleries: list[dict], settings: dict) -> str | None:
    """The variant that is held against the first of the galleries before a reader chooses another one."""
    others = list(galleries[0]["variants"])[1:] if galleries else []
    primary = (settings["primary"] or {}).get("variant")
    return primary if primary in others else next(iter(others), None)


def write(tables, figures, galleries, settings: dict, path: str | Path, indexes=()) -> None:
    """Write the page of a run: its tables, figures, episodes and data.

    Figures and pictures of episodes are linked, from where the page lies; keep the folders together.

    Args:
        tables: pages of the tables.
        figures: PNG files; the SVG file of each lies beside it.
        galleries: files that `gallery.write` makes.
        settings: `Shown.table_settings`.
        indexes: files of the data that the run reads.

    Raises:
        CdfssError: when tables and pictures are of different models, pictures or code, not whole, or of
            an older version.
    """
    here = Path(path).parent
    articles, origins = [], {}
    for table in tables:
        article, origins[table] = _article(table)
        articles.append(article)
    shown = []
    for figure in map(Path, figures):
        origins[figure], (width, height) = _figure(figure)
        entry, detail = catalogue.figure(figure.stem, settings)
        link = os.path.relpath(figure, here)
        shown.append(
            {
                "name": figure.stem,
                "heading": f"{entry.heading}{detail}",
                "caption": entry.caption,
                "png": link,
                "width": width,
                "height": height,
                "svg": str(Path(link).with_suffix(".svg")),
            }
        )
    entries = []
    for gallery in map(Path, galleries):
        try:
            entry = json.loads(gallery.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise provenance.damaged(gallery, error) from error
        origins[gallery] = entry.get("origin", {})
        if "list" not in entry:
            raise CdfssError(
                f"{gallery} was made by an older version of cdfss and lacks the list of all episodes. To "
                f"make it anew, {again('gallery')}"
            )
        entries.append(entry | {"folder": os.path.relpath(gallery.parent, here)})
        for episode in entry["episodes"]:
            episode["anchor"] = anchor_of(entry["domain"], entry["shot"], episode["episode"])
        entry["list"]["classes"] = list(map(words, entry["list"]["classes"]))
    anchors = {episode["anchor"] for entry in entries for episode in entry["episodes"]}
    provenance.summaries_must_agree(origins)
    domains, shots, seeds = settings["domains"], settings["shots"], settings["seeds"]
    sources = settings["sources"]
    summary = [
        f"Run {settings['run']}: {', '.join(domains.values())}",
        f"{len(settings['variants'])} variants",
        f"shots {', '.join(map(str, shots))}",
        f"seeds {', '.join(map(str, seeds))}",
        *([f"source seeds {', '.join(map(str, sources))}"] if len(sources) > 1 else []),
        f"{settings['image_size']} px",
    ]
    text = _render(
        title=settings["title"] or "Cross-domain few-shot segmentation",
        summary="; ".join(summary) + ".",
        articles=[_linked(article, anchors) for article in articles],
        figures=shown,
        galleries=entries,
        domains=domains,
        shots=shots,
        found=htmlsafe_json_dumps(_found(entries, domains), separators=(",", ":")),
        sources=len(sources),
        compared=_compared(entries, settings),
        data=prepared.of_run(indexes, domains),
    )
    with replacing(path) as temporary:
        temporary.write_text(text)
