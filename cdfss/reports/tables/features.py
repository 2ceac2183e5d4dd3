"""Tables 3 and 4: what is measured in features, from `cdfss.evaluation.measurement`."""

import numpy as np
import pandas as pd

from cdfss.evaluation.measurement import NO_FILTER, after_step, filter_name, finite
from cdfss.reports import statistics
from cdfss.reports.catalogue import KINDS
from cdfss.reports.statistics import UNKNOWN, Estimate
from cdfss.reports.tables.miou import MIOU
from cdfss.reports.tables.quoted import QUOTED, published_of
from cdfss.reports.tables.writing import (
    CHANGED,
    GAINS,
    Section,
    Table,
    about_intervals,
    adjust,
    as_cells,
    changes,
    columns_of,
    says_it_twice,
    title_of,
    with_interval,
)

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
        return Table(3, title, pd.DataFrame(), [], ["Not in this run: a variant of HSNet."])
    variants = {name: variant["title"] for name, variant in settings["variants"].items()}
    pictures = filtered.assign(cell=filter_name(filtered["amplitude"], filtered["phase"]))
    parts, first = [pictures], filtered.iloc[0]
    if measured is not None:
        masked = measured[measured["factors"].str.len() > 0]
        parts.append(after_step(masked).assign(cell=masked["variant"]))
    rows = _above_chance(pd.concat(parts, ignore_index=True))
    rows, left_out = finite(rows, [*INFORMATION], "cell", settings)
    stated = settings["stated"]
    estimates = {"miou": statistics.list_miou_estimates(rows, stated, "cell")}
    estimates |= {column: statistics.mean_estimates(rows, column, stated, "cell") for column in INFORMATION}
    forms = {"miou": (".2f", "+.2f")} | dict.fromkeys(INFORMATION, (".4f", "+.4f"))
    by_domain: dict[str, list[dict]] = {}
    for domain in settings["domains"]:
        miou = {cell: estimate for (cell, d), estimate in estimates["miou"].items() if d == domain}
        filters = [name for name in pictures["cell"].unique() if name in miou and name != NO_FILTER]
        if not filters or NO_FILTER not in miou:
            continue  # no episode is left, as the notes say
        # Of equal ones the first: without the high amplitudes, say, it is all one which phases are kept.
        best, worst = (choose(filters, key=lambda name: miou[name].value) for choose in (max, min))
        shown = [("no filter", NO_FILTER), ("best filter", best), ("worst filter", worst)]
        shown += [(f"after {variants[cell]}", cell) for cell in miou if cell in variants]
        for heading, cell in shown:
            label = f"{heading}: {cell}" if cell in filters else heading
            line = {"domain": domain, "row": heading, "cell": cell, "heading": label}
            for column, of_all in estimates.items():
                line |= of_all[cell, domain].columns(column)
                if cell != NO_FILTER:
                    line |= (of_all[cell, domain] - of_all[NO_FILTER, domain]).columns(f"{column}_gain")
            line["episodes"] = int((rows["cell"].eq(cell) & rows["domain"].eq(domain)).sum())
            by_domain.setdefault(domain, []).append(line)
    lines = [line for of_domain in by_domain.values() for line in of_domain]
    adjust(lines, [f"{column}_gain" for column in forms])
    sections = []
    for domain, of_domain in by_domain.items():
        headings = [f"{heading}, nats" for heading in INFORMATION.values()]
        section = Section(settings["domains"][domain], ["", "mIoU, %", *headings])
        for line in of_domain:
            section.add([line.pop("heading"), *(with_interval(line, c, forms[c][0]) for c in forms)])
            if line["cell"] != NO_FILTER:
                differences = (with_interval(line, f"{c}_gain", forms[c][1]) for c in forms)
                section.add(["− no filter", *differences], "detail")
                without = (changes(line, f"{c}_gain", forms[c][1], settings) for c in forms)
                section.add([CHANGED, *without], "detail")
        if settings["published"]:
            for quoted in _quoted_information(domain, first["shot"]):
                section.add(quoted, "quoted")
        sections.append(section)
    notes = _information_notes(first, _episodes(rows), settings) + left_out
    if measured is None or masked.empty:
        notes.append("Not in this run: a main variant with APM, so there are no lines after APM.")
    return Table(3, title, pd.DataFrame(lines), sections, notes)


def _information_notes(first: pd.Series, episodes: dict[str, int], settings: dict) -> list[str]:
    episodes = ", ".join(f"{settings['domains'][domain]} {n}" for domain, n in episodes.items())
    notes = [
        MIOU.split(' "Average"')[0],
        "MI in nats, the mean over channel pairs of the last stride-32 map, of whole pictures. Above "
        "chance: less what the same estimate gives once each channel is shifted by an offset of its own, "
        "that is for channels as smooth as these that share little (of n positions one pair in n keeps "
        "its places by chance). The paper does not state its estimator, so its level is not comparable "
        "with ours.",
        "Best and worst of the eight filters by mIoU: chosen on the episodes that they are shown on, "
        "which flatters their differences; the intervals do not know of the choice.",
        f"Low frequencies: up to {first['radius']:g} of the highest one along an axis; removed "
        f"amplitudes: {first['fill']}; removed phases: 0. The paper states neither.",
        "ACPA multiplies channels by positive factors, which changes MI only through the masks tuned "
        "beside it.",
        f"{first['shot']}-shot, seed {first['seed']}; episodes: {episodes}.",
        about_intervals(settings),
        GAINS,
    ]
    if settings["published"]:
        notes.append(
            QUOTED + " The paper's worst filter on FSS-1000 (48.05) is not the worst of its Fig. 1 (31.00)."
        )
    return notes


def _above_chance(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        support_above_chance=rows["support_information"] - rows["support_chance"],
        query_above_chance=rows["query_information"] - rows["query_chance"],
    )


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
        return Table(4, title, pd.DataFrame(), [], ["Not in this run: a main variant of HSNet."])
    shot, seed = (int(measured[column].iloc[0]) for column in ("shot", "seed"))
    measured = measured.assign(distance=1 - measured["cka"])
    measured, left_out = finite(measured, ["distance"], "variant", settings)
    estimates = statistics.mean_estimates(measured, "distance", settings["stated"])
    baseline = settings["baseline"]
    compared = baseline in set(measured["variant"])
    paper = published_of("7", shot, "support-query CKA distance")
    section = Section("", ["1 − CKA", *settings["domains"].values(), "Average"])
    lines = []
    for variant in measured["variant"].unique():
        for name, group in columns_of(settings).items():
            estimate = Estimate.mean(estimates.get((variant, domain), UNKNOWN) for domain in group)
            line = {"variant": variant, "domain": name, **estimate.columns("distance")}
            if compared and variant != baseline:
                reference = Estimate.mean(estimates.get((baseline, domain), UNKNOWN) for domain in group)
                line |= (estimate - reference).columns("gain")
            if settings["published"]:
                line["published"] = np.mean([paper.get((variant, domain), np.nan) for domain in group])
            lines.append(line)
    adjust(lines, ["gain"], lambda line: says_it_twice(line, settings))
    for variant in measured["variant"].unique():
        mine = [line for line in lines if line["variant"] == variant]
        heading = settings["variants"][variant]["title"]
        section.add([heading, *(with_interval(c, "distance", ".4f") for c in mine)])
        if "gain" in mine[0]:
            section.add(["− baseline", *(with_interval(c, "gain", "+.4f") for c in mine)], "detail")
            without = (changes(c, "gain", "+.4f", settings) for c in mine)
            section.add([CHANGED, *without], "detail")
        if settings["published"] and not np.isnan([c["published"] for c in mine]).all():
            quoted = as_cells([c["published"] for c in mine], ".4f")
            section.add(["quoted: paper", *quoted], "detail")
    episodes = {domain: _episodes(measured).get(domain, 0) for domain in settings["domains"]}
    section.add(["episodes", *(str(n) for n in (*episodes.values(), sum(episodes.values())))], "total")
    notes = [
        "Linear CKA of the last stride-32 maps of the first support and of the query, after APM and "
        "ACPA, of whole pictures. The examples are the channels, the features their values at the "
        "positions; the paper does not state its examples, so its level is not comparable with ours.",
        f"{shot}-shot, seed {seed}.",
        about_intervals(settings),
        GAINS
        if compared
        else f"Not in this table: {KINDS['baseline']}, so there are no differences from it.",
        *left_out,
    ]
    if settings["published"]:
        notes.append(
            QUOTED + " The paper's bold on Chest X-ray (0.3986) is not its smallest value (0.3628)."
        )
    return Table(4, title, pd.DataFrame(lines), [section], notes)
