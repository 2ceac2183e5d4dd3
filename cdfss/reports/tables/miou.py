"""Tables 1, 2, 5, 7, 8 and 9: mIoU of variants, from evaluation rows."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from cdfss.data import metrics
from cdfss.errors import CdfssError
from cdfss.evaluation import results
from cdfss.reports import statistics
from cdfss.reports.catalogue import KINDS, TABLES
from cdfss.reports.statistics import READINGS, Estimate
from cdfss.reports.tables.quoted import QUOTED, published, quoted_lines
from cdfss.reports.tables.writing import (
    AVERAGE,
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

MIOU = (
    "mIoU in percent: intersection and union are summed over the episodes of a class, divided, and "
    'averaged over the classes. "Average" is the mean over the domains.'
)
PRIMARY = (
    "Primary comparison: the one that the run was made for, named in its configuration (primary) before it "
    "ran, with its own p value for each number of shots. All others are looked at beside it, and a star "
    "there holds after correction for all of them."
)
PROTOCOL = (
    "Choices where the paper is silent (docs/explanation/fidelity.md), unless a variant is configured "
    "otherwise: each episode starts anew, from the run's seed; the loss of k shots is the mean over the k "
    "self-pairs; masks are compared at the configured image size; supports of one episode may repeat; "
    "classes of ISIC in the order of data.<name>.class_order."
)

TRANSFORMER_PROTOCOL = (
    "Choices where the paper is silent (docs/explanation/fidelity.md), unless a variant is configured "
    "otherwise: each episode starts anew, from the run's seed; the loss of k shots is the mean over the "
    "supports, each predicted from all k; masks are compared at the configured image size; supports of one "
    "episode may repeat; classes of ISIC in the order of data.<name>.class_order."
)


def missing_kinds(settings: dict, shown: str, kinds: Iterable[str]) -> list[str]:
    """A note on kinds of variants that a table cannot show; empty if it has all.

    Args:
        shown: key of `Shown.by_subject`.
    """
    there = {settings["variants"][name]["kind"] for name in settings["shown"][shown]}
    lacks = [KINDS[kind] for kind in kinds if kind not in there]
    if not lacks:
        return []
    where = "config/config.yaml and config/extended.yaml have such variants"
    return [f"Not in this table: {'; '.join(lacks)}. {where}."]


def miou_numbers(
    rows: pd.DataFrame, settings: dict, variants: list[str], primary: bool = False
) -> pd.DataFrame:
    """mIoU in long form: a line per (variant, domain or "average", shot).

    Columns: miou and gain (over the baseline, paired) in percent and percentage points, each with what
    `statistics.Estimate.columns` and `readings` say of it; gain_p_holm (`adjust`); fb_iou; to compare with
    other papers miou_batchwise and miou_original (percent); episodes; seeds; seed_sd, the standard
    deviation of mIoU over seeds, missing for one; sources and source_sd, the same of source trainings;
    published, the paper's value, where the settings ask for it.

    Args:
        rows: evaluation rows.
        settings: `Shown.table_settings`.
        primary: whether the primary comparison stands by itself and not among all others.

    Raises:
        CdfssError: names the combinations that have no rows; and as `statistics.miou_estimates`.
    """
    baseline = settings["baseline"]
    must_have_rows(rows, settings, variants)
    estimates = statistics.miou_estimates(rows, settings["stated"])
    scores = other_scores(rows)
    paper = published("10").set_index(["method", "domain", "shot"])["value"]
    lines = []
    for variant in variants:
        for shot in settings["shots"]:
            for name, domains in columns_of(settings).items():
                keys = [(domain, shot, seed) for domain in domains for seed in settings["seeds"]]
                mine = Estimate.mean(estimates[variant, *key] for key in keys)
                line = {"variant": variant, "domain": name, "shot": shot, **mine.columns("miou")}
                line |= mine.readings("miou")
                if baseline and variant != baseline:
                    gain = mine - Estimate.mean(estimates[baseline, *key] for key in keys)
                    line |= gain.columns("gain") | gain.readings("gain")
                by_seed = [
                    np.mean([estimates[variant, domain, shot, seed].value for domain in domains])
                    for seed in settings["seeds"]
                ]
                line |= {
                    score: np.mean([of_all[variant, *key] for key in keys])
                    for score, of_all in scores.items()
                }
                line["episodes"] = mine.episodes
                for kind, values in (("seed", by_seed), ("source", list(mine.by_source.values()))):
                    line[f"{kind}s"] = len(values)
                    line[f"{kind}_sd"] = np.std(values, ddof=1) if len(values) > 1 else np.nan
                if settings["published"]:
                    values = [paper.get((variant, domain, shot), np.nan) for domain in domains]
                    line["published"] = np.mean(values)
                    line["published_difference"] = line["miou"] - line["published"]
                lines.append(line)
    adjust(
        lines,
        ["gain"],
        lambda line: says_it_twice(line, settings) or (primary and _is_primary(line, settings)),
    )
    return pd.DataFrame(lines)


def _is_primary(line: dict, settings: dict) -> bool:
    """Whether a line's gain is the primary comparison."""
    primary = {"variant": line["variant"], "against": settings["baseline"]}
    return line["domain"] == AVERAGE and primary == settings["primary"]


def other_scores(rows: pd.DataFrame) -> dict[str, dict[tuple, float]]:
    """Scores besides mIoU in percent by (variant, domain, shot, seed), means over source trainings."""
    keys = ["variant", "domain", "shot", "seed"]
    scores: dict[str, dict[tuple, list[float]]] = {}
    for (*key, _), group in rows.groupby([*keys, "source"], sort=False, dropna=False):
        found = {"fb_iou": metrics.fb_iou(*results.counts(group))}
        # For comparison with other papers alone, on the same predictions.
        found["miou_batchwise"] = results.batchwise_miou(group)
        found["miou_original"] = results.original_miou(group)
        for score, value in found.items():
            value = np.nan if value is None else 100 * value
            scores.setdefault(score, {}).setdefault(tuple(key), []).append(value)
    return {score: {key: np.mean(v) for key, v in of_all.items()} for score, of_all in scores.items()}


def must_have_rows(rows: pd.DataFrame, settings: dict, variants: list[str]) -> None:
    """Refuse rows that lack a variant on a domain, number of shots, seed or source training of the run.

    Raises:
        CdfssError: names what is missing.
    """
    wanted = [
        (variant, domain, shot, seed, source)
        for variant in variants
        for domain in settings["domains"]
        for shot in settings["shots"]
        for seed in settings["seeds"]
        for source in sources_of(variant, settings)
    ]
    several = len(settings["sources"]) > 1  # rows of before, of one training, do not say which
    sources = [None if pd.isna(source) or not several else int(source) for source in rows["source"]]
    there = set(zip(rows["variant"], rows["domain"], rows["shot"], rows["seed"], sources))
    missing = [key for key in wanted if key not in there]
    if missing:
        shown = "; ".join(
            f"{v}, {d}, {shot}-shot, seed {seed}" + ("" if source is None else f", source seed {source}")
            for v, d, shot, seed, source in missing[:10]
        )
        raise CdfssError(f"tables: {len(missing)} combinations have no evaluation rows: {shown}")


def sources_of(variant: str, settings: dict) -> list[int | None]:
    """Seeds of the source trainings that tell a variant's rows apart; [None] where there is one or none."""
    trained = settings["variants"][variant]["needs"] == "source"
    return settings["sources"] if trained and len(settings["sources"]) > 1 else [None]


def primary_section(rows: pd.DataFrame, settings: dict) -> Section | None:
    """The run's primary comparison; None where it names none."""
    if settings["primary"] is None:
        return None
    variant, against = (settings["primary"][key] for key in ("variant", "against"))
    estimates = statistics.miou_estimates(
        rows[rows["variant"].isin([variant, against])], settings["stated"]
    )
    cells = []
    for shot in settings["shots"]:
        keys = [(domain, shot, seed) for domain in settings["domains"] for seed in settings["seeds"]]
        mine, other = (Estimate.mean(estimates[name, *key] for key in keys) for name in (variant, against))
        cells.append({"variant": variant, **(mine - other).columns("gain")})
    section = Section(
        "Primary comparison: average mIoU, points", ["", *(f"{shot}-shot" for shot in settings["shots"])]
    )
    titles = [settings["variants"][name]["title"] for name in (variant, against)]
    section.add([" − ".join(titles), *(with_interval(c, "gain", "+.2f") for c in cells)])
    said = ((c["gain_why"] and f"none: {c['gain_why']}") or f"{c['gain_p']:.3g}" for c in cells)
    section.add(["p", *said], "detail")
    section.add([CHANGED, *(changes(c, "gain", "+.2f", settings) for c in cells)], "detail")
    return section


def miou_sections(
    numbers: pd.DataFrame, settings: dict, quoted: pd.DataFrame | None = None
) -> list[Section]:
    """A section per number of shots: a line per variant, its gain over the baseline, quoted values."""
    if numbers.empty:
        return []
    by_cell = {(line["variant"], line["domain"], line["shot"]): line for line in numbers.to_dict("records")}
    sections = []
    for shot in settings["shots"]:
        section = Section(f"{shot}-shot", ["mIoU, %", *settings["domains"].values(), "Average"])
        for variant in numbers["variant"].unique():
            mine = [by_cell[variant, domain, shot] for domain in columns_of(settings)]
            title = settings["variants"][variant]["title"]
            section.add([title, *(with_interval(c, "miou") for c in mine)])
            if not np.isnan(mine[0].get("gain", np.nan)):
                gains = (with_interval(c, "gain", "+.2f") for c in mine)
                section.add(["− baseline", *gains], "detail")
                section.add([CHANGED, *(changes(c, "gain", "+.2f", settings) for c in mine)], "detail")
            for kind, heading in (("seed", "sd over seeds"), ("source", "sd over source trainings")):
                if mine[0][f"{kind}s"] > 1:
                    spread = as_cells([c[f"{kind}_sd"] for c in mine], ".2f")
                    section.add([heading, *spread], "detail")
            names = [n for n in ("miou", "gain") if not np.isnan(mine[0].get(n, np.nan))]
            for name in names if mine[0]["sources"] > 1 else []:
                ends = ([c[f"{name}_training_{end}"] for end in ("low", "high")] for c in mine)
                shown = ("" if np.isnan(low) else f"[{low:.2f}, {high:.2f}]" for low, high in ends)
                of_it = "mIoU" if name == "miou" else "difference"
                section.add([f"{of_it}, for {READINGS['training']}", *shown], "detail")
            if settings["published"] and not np.isnan([c["published"] for c in mine]).all():
                section.add(["quoted: paper", *as_cells([c["published"] for c in mine], ".2f")], "detail")
                difference = as_cells([c["published_difference"] for c in mine], "+.2f")
                section.add(["ours − paper", *difference], "detail")
        if quoted is not None and settings["published"]:
            for line in quoted_lines(quoted, settings, shot):
                section.add(line, "quoted")
        section.add(["episodes", *(f"{c['episodes']:.0f}" for c in mine)], "total")
        sections.append(section)
    return sections


def _miou_table(
    number: int,
    rows: pd.DataFrame | None,
    settings: dict,
    kinds: Iterable[str],
    quoted: pd.DataFrame | None = None,
    notes: Iterable[str] = (),
    protocol: str = PROTOCOL,
    baseline: str = "baseline",
) -> Table:
    """A table of the variants that the catalogue names; `kinds` are those it is about.

    `baseline` is the kind of what others are compared with.
    """
    (shown,) = TABLES[number].needs
    notes = [*notes, *missing_kinds(settings, shown, kinds)]
    if rows is None:
        lacks = [*notes, *missing_kinds(settings, shown, [baseline])]
        return Table(number, title_of(number, settings), pd.DataFrame(), [], lacks)
    numbers = miou_numbers(rows, settings, settings["shown"][shown], primary=number == 1)
    about = [MIOU, about_intervals(settings), GAINS, protocol]
    if settings["baseline"] is None:
        about.remove(GAINS)
        notes = [*notes, f"Not in this run: {KINDS[baseline]}, so there are no differences from it."]
    if settings["published"]:
        about.append(QUOTED)
    sections = miou_sections(numbers, settings, quoted)
    if number == 1 and (primary := primary_section(rows, settings)):
        sections.insert(0, primary)
        about.insert(0, PRIMARY)
    notes = [*notes, *diverged(rows, settings), *jumped(rows, settings), *unseen(rows, settings)]
    return Table(number, title_of(number, settings), numbers, sections, [*about, *notes])


def diverged(rows: pd.DataFrame, settings: dict) -> list[str]:
    """A note on episodes whose adaptation diverged; empty if none has."""
    losses = rows[["first_loss", "last_loss"]].to_numpy(float)
    lost = rows[(rows["steps"] > 0) & ~np.isfinite(losses).all(axis=1)]
    if lost.empty:
        return []
    titles, domains = settings["variants"], settings["domains"]
    numbers = lost.groupby(["variant", "domain", "shot"], sort=False).size().items()
    named = "; ".join(
        f"{titles[v]['title']} on {domains[d]}, {shot}-shot: {n}" for (v, d, shot), n in numbers
    )
    return [
        f"Episodes whose adaptation diverged (no finite loss), counted as they were predicted: {named}."
    ]


def jumped(rows: pd.DataFrame, settings: dict) -> list[str]:
    """A note on episodes that the moving threshold of the published rule for votes decides; empty if none.

    By domain and shots: those of the baseline, and the most of another variant under this rule.
    """
    baseline = settings["baseline"]
    titles = {name: v["title"] for name, v in settings["variants"].items() if v["published_vote"]}
    voted = rows[rows["voted_pixels"].notna() & rows["variant"].isin(titles)]
    named = []
    for (domain, title), shot in product(settings["domains"].items(), settings["shots"]):
        mine = voted[(voted["domain"] == domain) & (voted["shot"] == shot)]
        jumps = (mine["voted_pixels"] > 0).groupby(mine["variant"]).agg(["sum", "size"])
        if not jumps["sum"].any():
            continue
        of_baseline = jumps[jumps.index == baseline]
        others = jumps.reindex([name for name in titles if name in jumps.index and name != baseline])
        said = [f"{n} of {total} with {titles[baseline]}" for n, total in of_baseline.to_numpy()]
        if others["sum"].any():
            most = others["sum"].idxmax()
            n, total = others.loc[most]
            said.append(f"up to {n} of {total} with others ({titles[most]})")
        named.append(f"{title}, {shot}-shot: {', '.join(said)}")
    if not named:
        return []
    return [
        "Episodes with pixels that the published rule for votes (foreground by at least half of the "
        "largest number that any pixel got) labels otherwise than a majority of the supports: "
        f"{'; '.join(named)}."
    ]


def unseen(rows: pd.DataFrame, settings: dict) -> list[str]:
    """A note on episodes in which modules cannot act; empty if there are none.

    Masks of supports alone decide it, so that all variants of HSNet agree.
    """
    of_hsnet = {name for name, v in settings["variants"].items() if v["kind"] not in ("other", "trivial")}
    known = rows[rows["supports_unseen"].notna() & rows["variant"].isin(of_hsnet)]
    known = known.drop_duplicates(["domain", "shot", "seed", "episode"])
    named = []
    for (domain, title), shot in product(settings["domains"].items(), settings["shots"]):
        mine = known[(known["domain"] == domain) & (known["shot"] == shot)]
        number = (mine["supports_unseen"] == shot).sum()
        if number:
            named.append(f"{title}, {shot}-shot: {number} of {len(mine)}")
    if not named:
        return []
    return [
        "Episodes in which modules cannot act, since no support's mask holds a position of the "
        f"stride-32 maps: {'; '.join(named)}."
    ]


def main_table(rows: pd.DataFrame | None, settings: dict) -> Table:
    """Table 1: every main variant; quoted values of other methods.

    Args:
        rows: evaluation rows of the variants it shows; None if the run has none, as in tables 2 and 5.
        settings: `Shown.table_settings`.
    """
    quoted = pd.concat([published("2"), published("other papers")])
    notes = []
    if settings["published"]:
        secondary = quoted[quoted["note"] != ""].groupby("note")["method"]
        notes = [f"{note.capitalize()}: {', '.join(methods.unique())}." for note, methods in secondary]
    return _miou_table(1, rows, settings, ["trivial"], quoted, notes)


def insertion_table(rows: pd.DataFrame | None, settings: dict) -> Table:
    """Table 2: inserted modules untuned, tuned in every episode or through the list; ACPA alone; votes."""
    kinds = ["trivial", "baseline", "vote", "inserted", "attention", "modules", "cumulative"]
    return _miou_table(2, rows, settings, kinds)


def alternatives_table(rows: pd.DataFrame | None, settings: dict) -> Table:
    """Table 5: the modules against tuning the learner and backbone, and against an MI loss."""
    note = (
        "Paper table 5 states neither the tuned parts nor the learning rates, and no form of the "
        "mutual-information loss; here it is that of jointly normal channels "
        "(docs/explanation/fidelity.md)."
    )
    if settings["published"]:
        note += " Its printed average of the MI loss, 48.76, is not that of its own values, 48.96."
    return _miou_table(5, rows, settings, ["fine_tuning", "information"], published("5"), [note])


def rivals_table(number: int, rows: pd.DataFrame | None, settings: dict) -> Table:
    """Table 8 or 9: APM against other frequency methods, or channel-correlation methods, in its place."""
    (kind,) = TABLES[number].needs
    notes = [
        f"Paper table {number} states neither where these methods stand, nor their learning rates, steps "
        "and first values. Here each is a module in APM's place, in the smallest reading of its paper, "
        "tuned like APM where it has parameters (docs/explanation/fidelity.md)."
    ]
    if number == 8 and settings["published"]:
        notes.append("The paper's printed average of DAC, 51.98, is not that of its own values, 52.12.")
    return _miou_table(number, rows, settings, [kind, "modules"], published(str(number)), notes)


def transformer_table(rows: pd.DataFrame | None, settings: dict) -> Table:
    """Table 7: modules in FPTrans; its baseline is FPTrans as it is, not HSNet."""
    (shown,) = TABLES[7].needs
    variants = settings["variants"]
    plain = (name for name in settings["shown"][shown] if variants[name]["kind"] == "transformer")
    settings = settings | {"baseline": next(plain, None)}
    notes = [
        "Paper table 4 states neither the backbone, the source classes, the picture size, nor where APM-S "
        "stands; PerSAM's values are those that it prints (docs/explanation/fidelity.md)."
    ]
    if settings["baseline"]:
        notes.insert(0, "Baseline: FPTrans without modules.")
    quoted = published("4")
    return _miou_table(
        7, rows, settings, ["transformer_modules"], quoted, notes, TRANSFORMER_PROTOCOL, "transformer"
    )
