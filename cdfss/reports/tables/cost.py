"""Table 6: what a variant costs."""

import pandas as pd

from cdfss.reports.tables.miou import must_have_rows
from cdfss.reports.tables.writing import Section, Table, as_cells, title_of


def cost_table(rows: pd.DataFrame, settings: dict) -> Table:
    """Table 6: parameters, seconds per episode, peak memory of each variant and device, over all domains.

    Seconds are those of adaptation and prediction; the factor is the median over episodes of a
    variant's seconds over the baseline's on the same episode.
    """
    variants, baseline = settings["shown"]["cost"], settings["baseline"]
    must_have_rows(rows, settings, variants)
    lines, list_key = [], ["domain", "seed", "episode"]
    for name in variants:
        for (shot, device), mine in rows[rows["variant"] == name].groupby(["shot", "device"], sort=False):
            alike = rows["variant"].eq(baseline) & rows["shot"].eq(shot) & rows["device"].eq(device)
            of_mine, of_baseline = (part.set_index(list_key)["seconds"] for part in (mine, rows[alike]))
            low, middle, high = mine["seconds"].quantile([0.25, 0.5, 0.75])
            lines.append(
                {
                    "variant": name,
                    "shot": shot,
                    "device": device,
                    "parameters_added": int(mine["parameters_added"].max()),
                    "parameters_tuned": int(mine["parameters_tuned"].max()),
                    "steps": int(mine["steps"].max()),
                    "seconds": middle,
                    "seconds_low": low,
                    "seconds_high": high,
                    "factor": (of_mine / of_baseline).median(),
                    "peak_memory_mb": mine["peak_memory_mb"].max(),
                    "episodes": len(mine),
                }
            )
    numbers = pd.DataFrame(lines)
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
            (factor,) = as_cells([line["factor"]], ".3g")
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
