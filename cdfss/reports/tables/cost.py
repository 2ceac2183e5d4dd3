"""Table 6: what a variant costs."""

import pandas as pd

from cdfss.reports.tables.miou import miou_numbers, must_have_rows
from cdfss.reports.tables.writing import Section, Table, as_cells, title_of


def cost_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 6: mIoU, parameters, seconds per episode, memory of each variant and device, over all domains.

    The factor is the median over episodes of a variant's seconds over the baseline's on the same episode.
    """
    variants, baseline = settings["shown"]["cost"], settings["baseline"]
    must_have_rows(rows, settings, variants)
    lines, list_key = [], ["domain", "seed", "episode"]
    to_compare = rows.loc[rows["variant"].eq(baseline), [*list_key, "shot", "source", "device", "seconds"]]
    average = miou_numbers(rows, settings, variants).query("domain == 'average'")
    miou = average.set_index(["variant", "shot"])["miou"]
    for name in variants:
        for (shot, device), mine in rows[rows["variant"] == name].groupby(["shot", "device"], sort=False):
            # Of what needs no source model each episode is held against the baseline with every one; so it
            # is where the source model of one of the two was given.
            told_apart = mine["source"].notna().all() and to_compare["source"].notna().all()
            same = [*list_key, "shot", "device"] + ["source"] * bool(told_apart)
            both = mine.merge(to_compare, on=same, suffixes=("", "_of_baseline"))
            low, middle, high = mine["seconds"].quantile([0.25, 0.5, 0.75])
            lines.append(
                {
                    "variant": name,
                    "shot": shot,
                    "device": device,
                    "miou": miou[name, shot],
                    "needs": settings["variants"][name]["needs"],
                    "parameters_added": int(mine["parameters_added"].max()),
                    "parameters_tuned": int(mine["parameters_tuned"].max()),
                    "steps": int(mine["steps"].max()),
                    "fit_seconds": mine["fit_seconds"].median(),
                    "predict_seconds": mine["predict_seconds"].median(),
                    "seconds": middle,
                    "seconds_low": low,
                    "seconds_high": high,
                    "factor": (both["seconds"] / both["seconds_of_baseline"]).median(),
                    "peak_memory_mb": mine["peak_memory_mb"].max(),
                    "episodes": len(mine),
                }
            )
    numbers = pd.DataFrame(lines)
    columns = [
        "",
        "mIoU, %",
        "source training",
        "parameters added",
        "tuned",
        "steps",
        "fit, s",
        "predict, s",
        "both, s",
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
            (cell,) = as_cells([line["miou"]], ".2f")
            fit, predict, factor = as_cells(
                [line[k] for k in ("fit_seconds", "predict_seconds", "factor")], ".3g"
            )
            source = "yes" if line["needs"] == "source" else "no"
            title = settings["variants"][line["variant"]]["title"]
            memory = f"{line['peak_memory_mb']:,.0f}"
            section.add(
                [title, cell, source, *counted, fit, predict, seconds, factor, memory, line["device"]]
            )
        sections.append(section)
    notes = [
        f"Pictures of {settings['image_size']} px. mIoU: mean over the domains. Source training: whether a "
        "model must have been trained on the source before. Seconds of an episode: fitting to the "
        "supports, predicting the query, and both, the median over all episodes and domains, in brackets "
        "the quartiles; other jobs may have shared the machine.",
        "× baseline: median over episodes of the ratio on the same episode and device.",
        "Memory: largest of the variant's jobs; on a processor what the whole process held, libraries "
        "included, on a GPU what was allocated on it. It grows with the episodes adapted at once.",
        "Added: parameters of modules. Tuned: parameters that the steps change.",
    ]
    return Table(6, title_of(6, settings), numbers, sections, notes)
