"""The tables, from evaluation rows and measurements alone (no torch, no pictures)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from cdfss import measurement, metrics, page, results, statistics
from cdfss.catalogue import TABLES
from cdfss.configuration import KINDS
from cdfss.errors import CdfssError
from cdfss.files import replacing
from cdfss.statistics import UNKNOWN, Sample

AVERAGE = "average"
INTERVALS = (
    f"In brackets: 95 % bootstrap interval over episodes, drawn within each class {statistics.RESAMPLES:,} "
    "times. It is about these episodes; the chance of source training, of which there is one model, is "
    "not in it."
)
GAINS = "Lines that begin with a minus sign: paired difference on the same episodes, with its interval."
MIOU = (
    "mIoU in percent: intersection and union are summed over the episodes of a class, divided, and "
    'averaged over the classes. "Average" is the mean over the domains.'
)
QUOTED = (
    'Values marked "quoted" are printed in papers and were not computed here; they have no intervals, and '
    "their protocols may differ."
)
PROTOCOL = (
    "Choices where the paper is silent (docs/fidelity.md), unless a variant is configured otherwise: each "
    "episode starts anew, from the run's seed; the loss of k shots is the mean over the k self-pairs; "
    "masks are compared at the configured image size; supports of one episode may repeat; classes of ISIC "
    "in the order of data.<name>.class_order."
)


@dataclass
class Section:
    """Part of a table: cells as text, the first of each line its heading.

    Attributes:
        roles: of each line: "row"; "detail" of the row above; "quoted"; "total".
    """

    heading: str
    columns: list[str]
    lines: list[list[str]] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)

    def add(self, line: list[str], role: str = "row") -> None:
        self.lines.append(line)
        self.roles.append(role)


@dataclass
class Table:
    """A table for people, and its numbers in long form.

    Attributes:
        number: 1 to 6.
        title: of the run, then of the table.
        numbers: what the .csv file holds, unrounded.
        notes: what must be known to read it; what the run lacks.
    """

    number: int
    title: str
    numbers: pd.DataFrame
    sections: list[Section]
    notes: list[str]


def write(table: Table, paths: dict[str, str | Path]) -> None:
    """Write a table as Markdown, CSV (long form), LaTeX (booktabs) and a page that sorts.

    Args:
        paths: by "md", "csv", "tex" and "html".
    """
    markdown = [f"# {table.title}", ""]
    latex = ["% needs \\usepackage{booktabs}"]
    for section in table.sections:
        align = ["left"] + ["right"] * (len(section.columns) - 1)
        if section.heading:
            markdown += [f"## {section.heading}", ""]
        columns = [_markdown(text) for text in section.columns]
        lines = [[_markdown(text) for text in line] for line in section.lines]
        markdown += [tabulate(lines, columns, "pipe", disable_numparse=True, colalign=align), ""]
        caption = f"{table.title}. {section.heading}" if section.heading else table.title
        body = tabulate(
            section.lines, section.columns, "latex_booktabs", disable_numparse=True, colalign=align
        )
        for sign, command in LATEX_SIGNS.items():
            body = body.replace(sign, command)
        latex += ["\\begin{table}", "\\centering", f"\\caption{{{_latex(caption)}}}", body, "\\end{table}"]
    markdown += [f"- {note}" for note in table.notes]
    latex += [f"% {' '.join(note.split())}" for note in table.notes]
    with replacing(paths["md"]) as temporary:
        temporary.write_text("\n".join(markdown) + "\n")
    with replacing(paths["tex"]) as temporary:
        temporary.write_text("\n".join(latex) + "\n")
    with replacing(paths["html"]) as temporary:
        temporary.write_text(page.of_table(table))
    with replacing(paths["csv"]) as temporary:
        table.numbers.to_csv(temporary, index=False, float_format="%.6g")


def _markdown(text: str) -> str:
    return text.replace("|", "\\|")


LATEX_SIGNS = {"−": "$-$", "×": "$\\times$"}  # what tabulate leaves, and plain LaTeX does not know


def _latex(text: str) -> str:
    """Text in a caption."""
    special = {sign: f"\\{sign}" for sign in "%&_#${}"}
    special |= {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    special |= LATEX_SIGNS
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))


def of_files(number: int, rows, features, filtered, settings: dict) -> Table:
    """Table 1 to 6 from files; of those that it does not need the list is empty."""
    if number == 3:
        return information_table(measurement.load(filtered), measurement.load(features), settings)
    if number == 4:
        return similarity_table(measurement.load(features), settings)
    of_rows = {1: main_table, 2: insertion_table, 5: alternatives_table, 6: cost_table}
    return of_rows[number](results.load_listed(rows), settings)


def title_of(number: int, settings: dict) -> str:
    """The run's title first, so that a demo is seen to be one."""
    title = f"Table {number}. {TABLES[number]}"
    return f"{settings['title']}: {title}" if settings["title"] else title


# Published values


def published(table: str, metric: str = "mIoU") -> pd.DataFrame:
    """Printed values: method, domain, shot, value, note.

    Args:
        table: of the paper ("1" to "10", "Fig. 1"), or "other papers".
    """
    with resources.files("cdfss").joinpath("published.csv").open() as file:
        values = pd.read_csv(file, dtype={"table": str}, keep_default_na=False)
    values = values[(values["table"] == table) & (values["metric"] == metric)]
    values = values.astype({"shot": int, "value": float})
    return values[["method", "domain", "shot", "value", "note"]].reset_index(drop=True)


def published_of(table: str, shot: int, metric: str = "mIoU") -> pd.Series:
    """Printed values for a number of shots, by (method, domain)."""
    values = published(table, metric)
    return values[values["shot"] == shot].set_index(["method", "domain"])["value"]


def quoted_lines(values: pd.DataFrame, settings: dict, shot: int) -> list[list[str]]:
    """A line of quoted mIoU and its average for each method that has a value in one of the domains."""
    lines = []
    for method, group in values[values["shot"] == shot].groupby("method", sort=False):
        by_domain = group.set_index("domain")["value"]
        cells = [by_domain.get(domain, np.nan) for domain in settings["domains"]]
        if np.isnan(cells).all():
            continue
        lines.append([f"quoted: {method}", *_cells([*cells, np.mean(cells)], ".2f")])
    return lines


def _cells(values: Iterable[float], form: str) -> list[str]:
    return ["" if np.isnan(value) else format(value, form) for value in values]


# mIoU of variants: tables 1, 2, 5


def missing_kinds(settings: dict, shown: str, kinds: Iterable[str]) -> list[str]:
    """A note on kinds of variants that a table cannot show; empty if it has all.

    Args:
        shown: key of `Configuration.shown`.
    """
    there = {settings["variants"][name]["kind"] for name in settings["shown"][shown]}
    lacks = [KINDS[kind] for kind in kinds if kind not in there]
    if not lacks:
        return []
    return [f"Not in this run: {'; '.join(lacks)}. config/extended.yaml has such variants."]


def miou_numbers(rows: pd.DataFrame, settings: dict, variants: list[str]) -> pd.DataFrame:
    """mIoU in long form: a line per (variant, domain or "average", shot).

    Columns: miou and gain (over the baseline, paired), each with _low and _high, in percent and
    percentage points; fb_iou (percent); episodes; seeds; seed_sd, the standard deviation of mIoU
    over seeds, missing for one; published, the paper's value, where the settings ask for it.

    Args:
        rows: evaluation rows.
        settings: `Configuration.table_settings`.

    Raises:
        CdfssError: names the combinations that have no rows; and as `statistics.miou_samples`.
    """
    baseline = settings["baseline"]
    _must_have_rows(rows, settings, variants)
    samples = statistics.miou_samples(rows)
    fb_iou = {
        key: 100 * metrics.fb_iou(*results.counts(group))
        for key, group in rows.groupby(["variant", "domain", "shot", "seed"], sort=False)
    }
    episodes = rows.groupby(["variant", "domain", "shot"]).size()
    paper = published("10").set_index(["method", "domain", "shot"])["value"]
    lines = []
    for variant in variants:
        for shot in settings["shots"]:
            for name, domains in _columns(settings).items():
                keys = [(domain, shot, seed) for domain in domains for seed in settings["seeds"]]
                mine = Sample.mean(samples[variant, *key] for key in keys)
                line = {"variant": variant, "domain": name, "shot": shot, **mine.columns("miou")}
                if baseline and variant != baseline:
                    reference = Sample.mean(samples[baseline, *key] for key in keys)
                    line |= (mine - reference).columns("gain")
                by_seed = [
                    np.mean([samples[variant, domain, shot, seed].value for domain in domains])
                    for seed in settings["seeds"]
                ]
                line["fb_iou"] = np.mean([fb_iou[variant, *key] for key in keys])
                line["episodes"] = sum(episodes[variant, domain, shot] for domain in domains)
                line["seeds"] = len(by_seed)
                line["seed_sd"] = np.std(by_seed, ddof=1) if len(by_seed) > 1 else np.nan
                if settings["published"]:
                    values = [paper.get((variant, domain, shot), np.nan) for domain in domains]
                    line["published"] = np.mean(values)
                    line["published_difference"] = line["miou"] - line["published"]
                lines.append(line)
    return pd.DataFrame(lines)


def _columns(settings: dict) -> dict[str, list[str]]:
    """The domains of each column: one each, then all for the average."""
    domains = list(settings["domains"])
    return {**{domain: [domain] for domain in domains}, AVERAGE: domains}


def _must_have_rows(rows: pd.DataFrame, settings: dict, variants: list[str]) -> None:
    wanted = pd.MultiIndex.from_product(
        [variants, list(settings["domains"]), settings["shots"], settings["seeds"]]
    )
    there = set(zip(rows["variant"], rows["domain"], rows["shot"], rows["seed"]))
    missing = [key for key in wanted if key not in there]
    if missing:
        shown = "; ".join(f"{v}, {d}, {shot}-shot, seed {seed}" for v, d, shot, seed in missing[:10])
        raise CdfssError(f"tables: {len(missing)} combinations have no evaluation rows: {shown}")


def miou_sections(
    numbers: pd.DataFrame, settings: dict, quoted: pd.DataFrame | None = None
) -> list[Section]:
    """A section per number of shots: a line per variant, its gain over the baseline, quoted values."""
    if numbers.empty:
        return []
    cells = numbers.set_index(["variant", "domain", "shot"])
    sections = []
    for shot in settings["shots"]:
        section = Section(f"{shot}-shot", ["mIoU, %", *settings["domains"].values(), "Average"])
        for variant in numbers["variant"].unique():
            mine = [cells.loc[(variant, domain, shot)] for domain in _columns(settings)]
            title = settings["variants"][variant]["title"]
            section.add([title, *(_with_interval(c, "miou") for c in mine)])
            if "gain" in cells and not np.isnan(mine[0]["gain"]):
                gains = (_with_interval(c, "gain", "+.2f") for c in mine)
                section.add(["− baseline", *gains], "detail")
            if mine[0]["seeds"] > 1:
                spread = _cells([c["seed_sd"] for c in mine], ".2f")
                section.add(["sd over seeds", *spread], "detail")
            if settings["published"] and not np.isnan([c["published"] for c in mine]).all():
                section.add(["quoted: paper", *_cells([c["published"] for c in mine], ".2f")], "detail")
                difference = _cells([c["published_difference"] for c in mine], "+.2f")
                section.add(["ours − paper", *difference], "detail")
        if quoted is not None and settings["published"]:
            for line in quoted_lines(quoted, settings, shot):
                section.add(line, "quoted")
        section.add(["episodes", *(f"{c['episodes']:.0f}" for c in mine)], "total")
        sections.append(section)
    return sections


def _with_interval(cell, name: str, form: str = ".2f") -> str:
    if np.isnan(cell[name]):
        return ""
    if np.isnan(cell[f"{name}_low"]):  # of a single episode
        return format(cell[name], form)
    low, high = (format(cell[f"{name}_{end}"], form) for end in ("low", "high"))
    return f"{format(cell[name], form)} [{low}, {high}]"


def _miou_table(number, rows, settings, shown, quoted=None, notes=()) -> Table:
    if rows is None:
        lacks = [*notes, *missing_kinds(settings, shown, ["baseline"])]
        return Table(number, title_of(number, settings), pd.DataFrame(), [], lacks)
    numbers = miou_numbers(rows, settings, settings["shown"][shown])
    about = [MIOU, INTERVALS, GAINS, PROTOCOL]
    if settings["baseline"] is None:
        about.remove(GAINS)
        notes = [*notes, f"Not in this run: {KINDS['baseline']}, so there are no differences from it."]
    if settings["published"]:
        about.append(QUOTED)
    sections = miou_sections(numbers, settings, quoted)
    return Table(number, title_of(number, settings), numbers, sections, [*about, *notes])


def main_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 1: every main variant; quoted values of other methods."""
    quoted = pd.concat([published("2"), published("other papers")])
    notes = missing_kinds(settings, "main", ["trivial"])
    return _miou_table(1, rows, settings, "main", quoted, notes)


def insertion_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 2: what inserted modules do untrained, trained anew, trained through the list; ACPA alone."""
    kinds = ["trivial", "baseline", "inserted", "attention", "modules", "cumulative"]
    return _miou_table(2, rows, settings, "insertion", notes=missing_kinds(settings, "insertion", kinds))


def alternatives_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 5: the modules against tuning the learner and backbone, and against an MI loss."""
    notes = [
        "Paper table 5 states neither the tuned parts nor the learning rates, and no form of the "
        "mutual-information loss; here it is that of jointly normal channels (docs/fidelity.md).",
        *missing_kinds(settings, "alternatives", ["fine_tuning", "information"]),
    ]
    return _miou_table(5, rows, settings, "alternatives", published("5"), notes)


# Measurements in features: tables 3 and 4

INFORMATION = {
    "support_information": "support MI",
    "support_above_chance": "above chance",
    "query_information": "query MI",
    "query_above_chance": "above chance",
}


def information_table(
    filtered: pd.DataFrame | None, measured: pd.DataFrame | None, settings: dict
) -> Table:
    """Table 3: mIoU and channel MI without filter, with the best and worst filter, after APM.

    Best and worst are those of the eight filters by mIoU on these episodes.

    Args:
        filtered: rows of `measurement.FILTERED`; None if the run has no model.
        measured: rows of `measurement.FEATURES`; None if the run measures none.
    """
    title = title_of(3, settings)
    if filtered is None:
        return Table(3, title, pd.DataFrame(), [], ["Not in this run: a variant with a model."])
    titles = {name: variant["title"] for name, variant in settings["variants"].items()}
    parts = [filtered.assign(cell=filter_names(filtered))]
    if measured is not None:
        with_masks = measured[measured["amplitude_factor"].notna()]
        parts.append(measurement.after_step(with_masks).assign(cell=with_masks["variant"]))
    rows = _above_chance(pd.concat(parts, ignore_index=True))
    rows, left_out = finite(rows, [*INFORMATION], "cell")
    miou = statistics.list_miou_samples(rows, "cell")
    means = {column: statistics.mean_samples(rows, column, "cell") for column in INFORMATION}
    first, sections, lines = filtered.iloc[0], [], []
    for domain, heading in settings["domains"].items():
        cells = [cell for cell, d in miou if d == domain]
        filters = [cell for cell in cells if cell.startswith("amplitude ") and cell != NO_FILTER]
        # Of equal ones the first: without the high amplitudes, say, it is all one which phases are kept.
        best, worst = (choose(filters, key=lambda cell: miou[cell, domain].value) for choose in (max, min))
        shown = {NO_FILTER: "no filter", best: f"best filter: {best}", worst: f"worst filter: {worst}"}
        shown |= {cell: f"after {titles[cell]}" for cell in cells if cell in titles}
        section = Section(heading, ["", "mIoU, %", *(f"{name}, nats" for name in INFORMATION.values())])
        for cell, label in shown.items():
            samples = {"miou": miou[cell, domain]}
            samples |= {column: means[column][cell, domain] for column in INFORMATION}
            base = {"miou": miou[NO_FILTER, domain]}
            base |= {column: means[column][NO_FILTER, domain] for column in INFORMATION}
            line = {"domain": domain, "row": label.split(":")[0], "cell": cell}
            for column, sample in samples.items():
                line |= sample.columns(column)
                if cell != NO_FILTER:
                    line |= (sample - base[column]).columns(f"{column}_gain")
            line["episodes"] = int((rows["cell"].eq(cell) & rows["domain"].eq(domain)).sum())
            lines.append(line)
            forms = {"miou": (".2f", "+.2f")} | dict.fromkeys(INFORMATION, (".4f", "+.4f"))
            section.add([label, *(_with_interval(line, c, forms[c][0]) for c in forms)])
            if cell != NO_FILTER:
                differences = (_with_interval(line, f"{c}_gain", forms[c][1]) for c in forms)
                section.add(["− no filter", *differences], "detail")
        if settings["published"]:
            for quoted in _quoted_information(domain, first["shot"]):
                section.add(quoted, "quoted")
        sections.append(section)
    episodes = ", ".join(f"{settings['domains'][d]} {n}" for d, n in _episodes(filtered).items())
    notes = [
        MIOU.split(' "Average"')[0],
        "MI in nats, the mean over channel pairs of the last stride-32 map, of whole pictures. Above "
        "chance: less what the same estimate gives once each channel's positions are shuffled, that is "
        "for channels that share nothing. The paper does not state its estimator, so its level is not "
        "comparable with ours.",
        f"Low frequencies: up to {first['radius']:g} of the highest one along an axis; removed "
        f"amplitudes: {first['fill']}; removed phases: 0. The paper states neither.",
        "ACPA multiplies channels by positive factors, which changes MI only through the masks tuned "
        "beside it.",
        f"{first['shot']}-shot, seed {first['seed']}; episodes: {episodes}.",
        INTERVALS,
        GAINS,
    ]
    if settings["published"]:
        notes.append(QUOTED)
    notes += left_out
    if len(parts) == 1 or parts[1].empty:
        notes.append("Not in this run: a main variant with APM, so there are no lines after APM.")
    return Table(3, title, pd.DataFrame(lines), sections, notes)


NO_FILTER = "amplitude all, phase all"


def filter_names(filtered: pd.DataFrame) -> pd.Series:
    """The paper's names of filters: "amplitude low, phase high" ..."""
    return "amplitude " + filtered["amplitude"] + ", phase " + filtered["phase"]


def _above_chance(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        support_above_chance=rows["support_information"] - rows["support_chance"],
        query_above_chance=rows["query_information"] - rows["query_chance"],
    )


def finite(rows: pd.DataFrame, columns: list[str], by: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows with finite numbers, of the same episodes for all, and notes on what was left out.

    An adaptation that diverges has no features to speak of. Of a domain where one never ended well
    its rows are left out, else the episode, of all.

    Args:
        columns: of the numbers.
        by: the column that says what is compared.
    """
    notes, key = [], ["domain", "episode"]
    ended_well = pd.Series(np.isfinite(rows[columns].to_numpy(float)).all(axis=1), rows.index)
    never = ~ended_well.groupby([rows[by], rows["domain"]]).transform("any")
    if never.any():
        named = rows.loc[never, [by, "domain"]].drop_duplicates().itertuples(index=False)
        named = ", ".join(f"{name} on {domain}" for name, domain in named)
        notes.append(f"Left out, since adaptation diverged in every episode: {named}.")
    bad = rows.loc[~ended_well & ~never, key].drop_duplicates()
    if len(bad):
        named = ", ".join(f"{d} {n}" for d, n in bad.groupby("domain", sort=False).size().items())
        notes.append(f"Episodes left out, since an adaptation diverged: {named}.")
    lost = pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(bad))
    return rows[~never & ~lost], notes


def _episodes(rows: pd.DataFrame) -> dict[str, int]:
    return rows.groupby("domain", sort=False)["episode"].nunique().to_dict()


def _quoted_information(domain: str, shot: int) -> list[list[str]]:
    lines = []
    for table, names in (("1", ("no filter", "best filter", "worst filter")), ("6", ("apm_s",))):
        metrics_of_table = ("mIoU", "support channel MI", "query channel MI")
        miou, support, query = (published_of(table, shot, metric) for metric in metrics_of_table)
        for name in names:
            if (name, domain) in miou:
                cells = (f"{miou[name, domain]:.2f}", f"{support[name, domain]:.4f}", "")
                lines.append([f"quoted: {name}", *cells, f"{query[name, domain]:.4f}", ""])
    return lines


def similarity_table(measured: pd.DataFrame | None, settings: dict) -> Table:
    """Table 4: 1 - CKA of support and query features; smaller is closer.

    Args:
        measured: rows of `measurement.FEATURES`; None if the run measures none.
    """
    title = title_of(4, settings)
    if measured is None:
        return Table(4, title, pd.DataFrame(), [], ["Not in this run: a main variant with a model."])
    measured, left_out = finite(measured.assign(distance=1 - measured["cka"]), ["distance"], "variant")
    samples = statistics.mean_samples(measured, "distance")
    baseline = settings["baseline"]
    shot, seed = (int(measured[column].iloc[0]) for column in ("shot", "seed"))
    paper = published_of("7", shot, "support-query CKA distance")
    section = Section("", ["1 − CKA", *settings["domains"].values(), "Average"])
    lines = []
    for variant in measured["variant"].unique():
        mine = []
        for name, group in _columns(settings).items():
            sample = Sample.mean(samples.get((variant, domain), UNKNOWN) for domain in group)
            line = {"variant": variant, "domain": name, **sample.columns("distance")}
            if baseline in measured["variant"].unique() and variant != baseline:
                reference = Sample.mean(samples.get((baseline, domain), UNKNOWN) for domain in group)
                line |= (sample - reference).columns("gain")
            if settings["published"]:
                line["published"] = np.mean([paper.get((variant, domain), np.nan) for domain in group])
            mine.append(line)
        lines += mine
        heading = settings["variants"][variant]["title"]
        section.add([heading, *(_with_interval(c, "distance", ".4f") for c in mine)])
        if "gain" in mine[0]:
            section.add(["− baseline", *(_with_interval(c, "gain", "+.4f") for c in mine)], "detail")
        if settings["published"] and not np.isnan([c["published"] for c in mine]).all():
            quoted = _cells([c["published"] for c in mine], ".4f")
            section.add(["quoted: paper", *quoted], "detail")
    episodes = {domain: _episodes(measured).get(domain, 0) for domain in settings["domains"]}
    section.add(["episodes", *(str(n) for n in (*episodes.values(), sum(episodes.values())))], "total")
    notes = [
        "Linear CKA of the last stride-32 maps of the first support and of the query, after APM and "
        "ACPA, of whole pictures. The examples are the channels, the features their values at the "
        "positions; the paper does not state its examples, so its level is not comparable with ours.",
        f"{shot}-shot, seed {seed}.",
        INTERVALS,
        GAINS,
        *left_out,
    ]
    if settings["published"]:
        notes.append(
            QUOTED + " The paper's bold on Chest X-ray (0.3986) is not its smallest value (0.3628)."
        )
    return Table(4, title, pd.DataFrame(lines), [section], notes)


# Cost: table 6


def cost_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 6: parameters, seconds per episode, peak memory of each variant and device, over all domains.

    Seconds are those of adaptation and prediction; the factor is the median over episodes of a
    variant's seconds over the baseline's on the same episode.
    """
    variants = settings["shown"]["cost"]
    if rows is None:
        lacks = ["Not in this run: a variant that is more than a point of the figure of learning rates."]
        return Table(6, title_of(6, settings), pd.DataFrame(), [], lacks)
    _must_have_rows(rows, settings, variants)
    baseline, list_key = settings["baseline"], ["domain", "seed", "episode"]
    lines = []
    for (shot, device), group in rows.groupby(["shot", "device"], sort=False):
        of_variant = dict(list(group.groupby("variant")))
        for name in (name for name in variants if name in of_variant):
            mine = of_variant[name]
            low, middle, high = mine["seconds"].quantile([0.25, 0.5, 0.75])
            line = {
                "variant": name,
                "shot": shot,
                "device": device,
                "parameters_added": int(mine["parameters_added"].max()),
                "parameters_tuned": int(mine["parameters_tuned"].max()),
                "steps": int(mine["steps"].max()),
                "seconds": middle,
                "seconds_low": low,
                "seconds_high": high,
                "factor": np.nan,
                "peak_memory_mb": mine["peak_memory_mb"].max(),
                "episodes": len(mine),
            }
            if baseline in of_variant:
                pairs = [part.set_index(list_key)["seconds"] for part in (mine, of_variant[baseline])]
                line["factor"] = (pairs[0] / pairs[1]).median()
            lines.append(line)
    order = {name: place for place, name in enumerate(variants)}
    numbers = pd.DataFrame(lines)
    numbers = numbers.sort_values("variant", key=lambda names: names.map(order), kind="stable")
    columns = [
        "",
        "parameters added",
        "tuned",
        "steps",
        "s per episode",
        "× baseline",
        "memory, MB",
        "device",
    ]
    sections = []
    for shot in settings["shots"]:
        section = Section(f"{shot}-shot", columns)
        for line in numbers[numbers["shot"] == shot].to_dict("records"):
            seconds = f"{line['seconds']:.3g} [{line['seconds_low']:.3g}, {line['seconds_high']:.3g}]"
            counted = (f"{line[key]:,}" for key in ("parameters_added", "parameters_tuned", "steps"))
            (factor,) = _cells([line["factor"]], ".3g")
            title = settings["variants"][line["variant"]]["title"]
            memory = f"{line['peak_memory_mb']:,.0f}"
            section.add([title, *counted, seconds, factor, memory, line["device"]])
        sections.append(section)
    notes = [
        f"Pictures of {settings['image_size']} px. Seconds: adaptation and prediction of an episode, the "
        "median over all episodes and domains, in brackets the quartiles; other jobs may have shared the "
        "machine.",
        "× baseline: median over episodes of the ratio on the same episode and device.",
        "Memory: largest of the variant's jobs; on a processor what the whole process held, libraries "
        "included, on a GPU what was allocated on it. It grows with the episodes adapted at once.",
        "Added: parameters of APM and ACPA. Tuned: parameters that the steps change.",
    ]
    return Table(6, title_of(6, settings), numbers, sections, notes)
