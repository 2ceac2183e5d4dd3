"""Tables from evaluation rows alone (no torch, no pictures)."""

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from cdfss import metrics, results
from cdfss.errors import CdfssError
from cdfss.files import replacing

AVERAGE = "average"


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per (variant, domain, shot): mIoU and FB-IoU in percent, mean over seeds; episodes.

    Args:
        rows: evaluation rows.

    Raises:
        CdfssError: when an episode is there twice, which would count it twice.
    """
    key = ["variant", "domain", "shot", "seed"]
    twice = rows[rows.duplicated([*key, "episode"])]
    if len(twice):
        first = twice.iloc[0]
        raise CdfssError(
            f"rows: episode {first.episode} of {first.domain}, {first.variant}, {first.shot}-shot is "
            "there twice; pass the rows of one run only"
        )
    lines = []
    for (variant, domain, shot, seed), group in rows.groupby(key, sort=False):
        intersection, union = results.counts(group)
        lines.append(
            {
                "variant": variant,
                "domain": domain,
                "shot": shot,
                "seed": seed,
                "miou": 100 * metrics.mean_iou(intersection, union, group["class_id"]),
                "fb_iou": 100 * metrics.fb_iou(intersection, union),
                "episodes": len(group),
            }
        )
    by_seed = pd.DataFrame(lines).groupby(["variant", "domain", "shot"], sort=False)
    return by_seed.agg(
        miou=("miou", "mean"),
        fb_iou=("fb_iou", "mean"),
        episodes=("episodes", "sum"),
        seeds=("seed", "nunique"),
    ).reset_index()


def published() -> pd.DataFrame:
    """The paper's per-domain ablation (its Table 10): variant, domain, shot, published (mIoU, %)."""
    with resources.files("cdfss").joinpath("published.csv").open() as file:
        table = pd.read_csv(file, dtype={"table": str})
    table = table[(table["table"] == "10") & (table["metric"] == "mIoU")]
    table = table.astype({"shot": int, "value": float})
    return table.rename(columns={"method": "variant", "value": "published"})[
        ["variant", "domain", "shot", "published"]
    ]


def main_table(rows: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """Table 1 in long form: variant, domain, shot, miou, fb_iou, episodes, seeds[, published, difference].

    Averages over domains come as domain "average". Lines are in the order of the configuration.

    Args:
        settings: `Configuration.table_settings`.

    Raises:
        CdfssError: names the combinations that have no rows.
    """
    summary = summarise(rows)
    wanted = pd.MultiIndex.from_product(
        [list(settings["variants"]), list(settings["domains"]), settings["shots"]],
        names=["variant", "domain", "shot"],
    )
    summary = summary.set_index(["variant", "domain", "shot"])
    missing = [key for key in wanted if key not in summary.index]
    if missing:
        shown = "; ".join(f"{v}, {d}, {s}-shot" for v, d, s in missing[:10])
        raise CdfssError(f"table 1: {len(missing)} combinations have no evaluation rows: {shown}")
    table = summary.loc[wanted].reset_index()
    if settings["published"]:
        table = table.merge(published(), how="left", on=["variant", "domain", "shot"])
    averages = table.groupby(["variant", "shot"], sort=False, as_index=False).agg(
        {column: "mean" for column in table.columns if column in ("miou", "fb_iou")}
        | {"episodes": "sum", "seeds": "first"}
        | ({"published": lambda values: values.mean(skipna=False)} if settings["published"] else {})
    )
    table = pd.concat([table, averages.assign(domain=AVERAGE)], ignore_index=True)
    if settings["published"]:
        table["difference"] = table["miou"] - table["published"]
    order = {name: place for place, name in enumerate(settings["variants"])}
    return table.sort_values("variant", key=lambda names: names.map(order), kind="stable")


def _grid(table: pd.DataFrame, settings: dict) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of table 1: a row per variant, a column per domain and shot."""
    domains = {**settings["domains"], AVERAGE: "Average"}
    cells = table.set_index(["variant", "domain", "shot"]).sort_index()
    headings = ["mIoU, %"]
    headings += [f"{title} {shot}-shot" for title in domains.values() for shot in settings["shots"]]
    columns = [(domain, shot) for domain in domains for shot in settings["shots"]]

    def line(title, variant, column, form):
        values = [cells.at[(variant, *key), column] for key in columns]
        return [title, *(format(v, form) if np.isfinite(v) else "" for v in values)]

    lines = []
    for variant, title in settings["variants"].items():
        lines.append(line(title, variant, "miou", ".2f"))
        if settings["published"] and cells["published"].xs(variant).notna().any():
            lines.append(line("published", variant, "published", ".2f"))
            lines.append(line("difference", variant, "difference", "+.2f"))
    first = next(iter(settings["variants"]))
    lines.append(line("episodes", first, "episodes", ".0f"))
    return headings, lines


def title_of(settings: dict) -> str:
    """Heading of table 1, the configured title first so that a demo is seen to be one."""
    title = "Cross-domain few-shot segmentation: mIoU of the baseline and of each frequency module"
    return f"{settings['title']}: {title}" if settings["title"] else title


def caption_of(settings: dict) -> str:
    seeds = "mIoU per class from counts summed over episodes, mean over classes"
    caption = f"{seeds}; averages over domains; several seeds are averaged. Paper tables 3 and 10."
    if settings["published"]:
        caption += " Differences are ours minus published, in percentage points."
    return caption


def write_main_table(rows: pd.DataFrame, settings: dict, paths: dict[str, str | Path]) -> None:
    """Write table 1 as Markdown, CSV (long form) and LaTeX (booktabs).

    Args:
        paths: by "md", "csv" and "tex".
    """
    table = main_table(rows, settings)
    headings, lines = _grid(table, settings)
    markdown = tabulate(lines, headings, "pipe", disable_numparse=True, colalign=_align(headings))
    with replacing(paths["md"]) as temporary:
        temporary.write_text(f"# {title_of(settings)}\n\n{markdown}\n\n{caption_of(settings)}\n")
    with replacing(paths["csv"]) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    latex = tabulate(lines, headings, "latex_booktabs", disable_numparse=True, colalign=_align(headings))
    with replacing(paths["tex"]) as temporary:
        temporary.write_text(
            "% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n"
            f"\\caption{{{title_of(settings).replace('%', chr(92) + '%')}. "
            f"{caption_of(settings).replace('%', chr(92) + '%')}}}\n{latex}\n\\end{{table}}\n"
        )


def _align(headings: list[str]) -> list[str]:
    return ["left"] + ["right"] * (len(headings) - 1)
