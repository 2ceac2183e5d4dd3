"""Every number of every table, calculated again from rows by a few plain lines."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from made_rows import feature_rows, filtered_rows, row, table_settings
from scipy import stats
from scipy.special import expit, logit

from cdfss import CdfssError
from cdfss.evaluation import measurement, results
from cdfss.reports import tables

VARIANTS = {
    "foreground": {"method": "foreground"},
    "baseline": {"title": "Baseline"},
    "apm_s": {"title": "APM-S", "modules": ["apm_s"]},
    "zero": {"title": "Zero", "modules": ["apm_s"], "steps": 0, "main": False},
    "acpa": {"modules": ["acpa"], "main": False},
    "tuned": {"trained": ["learner"], "main": False},
    "fast": {"modules": ["apm_s"], "learning_rate": 0.5, "main": False},
}
SETTINGS = table_settings(VARIANTS, shots=[1, 5])


def rows(domains=("lungs", "cells"), variants=tuple(VARIANTS), shots=(1, 5), seeds=(0,), episodes=24):
    generator = np.random.RandomState(0)
    return [
        row(generator, domain, variant, shot, seed, episode)
        for domain in domains
        for variant in variants
        for shot in shots
        for seed in seeds
        for episode in range(episodes)
    ]


def chosen(lines, **which):
    return [line for line in lines if all(line[key] == value for key, value in which.items())]


def miou_by_hand(lines, **which):
    ious = []
    for class_id in (0, 1):
        mine = [line for line in chosen(lines, **which) if line["class_id"] == class_id]
        ious.append(
            sum(line["intersection_foreground"] for line in mine)
            / sum(line["union_foreground"] for line in mine)
        )
    return 100 * sum(ious) / 2


def of_shot(table, shot):
    (section,) = [section for section in table.sections if section.heading == f"{shot}-shot"]
    return section


def by_cell(table):
    return table.numbers.set_index(["variant", "domain", "shot"])


def test_every_mean_of_table_1_follows_from_the_rows():
    lines = rows()
    table = by_cell(tables.main_table(pd.DataFrame(lines), SETTINGS))
    assert list(dict.fromkeys(table.index.get_level_values(0))) == ["foreground", "baseline", "apm_s"]
    for variant in ("foreground", "baseline", "apm_s"):
        for shot in (1, 5):
            values = [
                miou_by_hand(lines, variant=variant, domain=d, shot=shot) for d in SETTINGS["domains"]
            ]
            against = [
                miou_by_hand(lines, variant="baseline", domain=d, shot=shot) for d in SETTINGS["domains"]
            ]
            for domain, value, reference in zip(SETTINGS["domains"], values, against):
                cell = table.loc[(variant, domain, shot)]
                assert cell["miou"] == pytest.approx(value)
                assert cell["miou_low"] < value < cell["miou_high"]
                assert cell["episodes"] == 24
                if variant == "baseline":
                    assert np.isnan(cell["gain"])
                else:
                    assert cell["gain"] == pytest.approx(value - reference)
                    assert cell["gain_low"] < cell["gain"] < cell["gain_high"]
            assert table.at[(variant, "average", shot), "miou"] == pytest.approx(sum(values) / 2)
            assert table.at[(variant, "average", shot), "episodes"] == 48


def test_intervals_are_those_of_a_plain_jackknife():
    lines = rows()
    cell = by_cell(tables.main_table(pd.DataFrame(lines), SETTINGS)).loc[("apm_s", "cells", 5)]
    mine, base = (chosen(lines, variant=v, domain="cells", shot=5) for v in ("apm_s", "baseline"))
    for name, number in (
        ("miou", lambda kept: miou_by_hand([mine[i] for i in kept])),
        ("gain", lambda kept: number_of_gain(mine, base, kept)),
    ):
        variances = []
        for class_id in (0, 1):
            of_class = [i for i, line in enumerate(mine) if line["class_id"] == class_id]
            without = [number([i for i in range(24) if i != gone]) for gone in of_class]
            variances.append(11 / 12 * np.sum((np.array(without) - np.mean(without)) ** 2))
        freedom = sum(variances) ** 2 / sum(v**2 / 11 for v in variances)
        half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(variances))
        value = number(range(24))
        if name == "miou":  # on the scale of log odds
            share = value / 100
            ends = logit(share) + np.array([-1, 1]) * half / 100 / (share * (1 - share))
            expected = 100 * expit(ends)
        else:
            expected = value + np.array([-half, half])
            p = 2 * stats.t.sf(abs(value) / np.sqrt(sum(variances)), freedom)
            assert cell["gain_p"] == pytest.approx(p)
        assert [cell[f"{name}_low"], cell[f"{name}_high"]] == pytest.approx(expected)


def number_of_gain(mine, base, kept):
    return miou_by_hand([mine[i] for i in kept]) - miou_by_hand([base[i] for i in kept])


def test_a_difference_tells_how_many_episodes_changed_and_what_it_is_without_one():
    lines = rows(variants=("foreground", "baseline", "apm_s"))
    for line in chosen(lines, variant="apm_s"):  # as the baseline, but for two episodes of cells
        (same,) = [
            other
            for other in chosen(lines, variant="baseline", domain=line["domain"], shot=line["shot"])
            if other["episode"] == line["episode"]
        ]
        line |= {key: same[key] for key in line if key.startswith(("intersection", "union"))}
        if line["domain"] == "cells" and line["episode"] in (3, 4):
            line["intersection_foreground"] += 200 if line["episode"] == 4 else 1
            line["union_foreground"] += 200 if line["episode"] == 4 else 1
    table = tables.main_table(pd.DataFrame(lines), SETTINGS)
    cell = by_cell(table).loc[("apm_s", "cells", 5)]
    mine, base = (chosen(lines, variant=v, domain="cells", shot=5) for v in ("apm_s", "baseline"))
    assert (cell["gain_changed"], cell["gain_episodes"]) == (2, 24)
    assert cell["gain_influential"] == "cells 5 0 4"
    kept = [i for i in range(24) if i != 4]
    assert cell["gain_without"] == pytest.approx(number_of_gain(mine, base, kept))
    assert cell["gain_why"] == "it comes down to about 1 of 24 episodes"
    assert np.isnan([cell["gain_low"], cell["gain_p"]]).all()
    untouched = by_cell(table).loc[("apm_s", "lungs", 5)]
    assert (untouched["gain"], untouched["gain_why"]) == (0, "no episode changed")
    (line,) = [
        line
        for line in of_shot(table, 5).lines
        if line[0].startswith("episodes changed") and "2 of" in line[2]
    ]
    assert line[1:] == ["0 of 24", f"2 of 24; {cell['gain_without']:+.2f}", line[3]]
    assert line[2].target == "episode-cells-5shot-4"
    assert not hasattr(line[1], "target")
    average = by_cell(table).loc[("apm_s", "average", 5)]
    assert (average["gain_changed"], average["gain_episodes"]) == (2, 48)
    assert average["gain_without"] == pytest.approx(cell["gain_without"] / 2)


def differing_by(gains, domains=("lungs", "cells"), episodes=40):
    """Rows in which `apm_s` has so many points of IoU more than the baseline, more or less."""
    generator = np.random.RandomState(3)
    lines = rows(domains, ("foreground", "baseline", "apm_s"), shots=(1,), episodes=episodes)
    for line in lines:
        line["union_foreground"] = 1000
        line["intersection_foreground"] = 300
        if line["variant"] == "foreground":
            line["intersection_foreground"] += round(50 * generator.randn())
        if line["variant"] == "apm_s":
            line["intersection_foreground"] += round(10 * (gains[line["domain"]] + 5 * generator.randn()))
    return pd.DataFrame(lines)


def test_the_primary_comparison_has_its_own_p_value_and_all_others_are_adjusted():
    settings = table_settings({n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, shots=[1])
    assert settings["primary"] == {"variant": "apm_s", "against": "baseline"}
    table = tables.main_table(differing_by({"lungs": 1.8, "cells": 0.0}), settings)
    primary = table.sections[0]
    assert primary.heading.startswith("Primary comparison")
    assert primary.lines[0][0] == "APM-S − Baseline"
    cells = by_cell(table)
    average = cells.loc[("apm_s", "average", 1)]
    assert primary.lines[1] == ["p", f"{average['gain_p']:.3g}"]
    assert np.isnan(average["gain_p_holm"])
    others = [
        key
        for key in cells.index
        if not np.isnan(cells.at[key, "gain_p"]) and key != ("apm_s", "average", 1)
    ]
    assert len(others) == 5  # of foreground and both domains of APM-S
    ranked = sorted(others, key=lambda key: cells.at[key, "gain_p"])
    largest = 0.0
    for rank, key in enumerate(ranked):
        largest = max(largest, min(1, (5 - rank) * cells.at[key, "gain_p"]))
        assert cells.at[key, "gain_p_holm"] == pytest.approx(largest)
    lungs = cells.loc[("apm_s", "lungs", 1)]
    (line,) = [line for line in of_shot(table, 1).lines if line[1].startswith(f"{lungs['gain']:+.2f}")]
    assert line[1].endswith("*") == (lungs["gain_p_holm"] < 0.05)
    assert not line[2].endswith("*")


def test_a_difference_that_one_test_would_find_is_not_marked_among_many():
    settings = table_settings({n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, shots=[1])
    for seed_gain in np.arange(1.0, 3.0, 0.1):
        table = tables.main_table(differing_by({"lungs": seed_gain, "cells": 0.0}), settings)
        cell = by_cell(table).loc[("apm_s", "lungs", 1)]
        if 0.02 < cell["gain_p"] < 0.049:
            break
    else:
        pytest.fail("no such difference was made")
    marked = [c for line in of_shot(table, 1).lines for c in line if c.startswith(f"{cell['gain']:+.2f}")]
    assert marked
    assert not any(text.endswith("*") for text in marked)


def test_of_one_domain_the_average_alone_is_of_the_family():
    settings = table_settings(
        {n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, ("lungs",), shots=[1]
    )
    cells = by_cell(tables.main_table(differing_by({"lungs": 1.0}, ("lungs",)), settings))
    foreground = cells.loc[("foreground", "average", 1)]
    assert foreground["gain_p_holm"] == pytest.approx(foreground["gain_p"])  # alone beside the primary
    assert cells.drop(index=("foreground", "average", 1))["gain_p_holm"].isna().all()


def test_where_the_primary_comparison_does_not_stand_it_is_one_of_the_family():
    settings = table_settings({n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, shots=[1])
    lines = differing_by({"lungs": 1.8, "cells": 0.5})
    assert not np.isnan(
        by_cell(tables.insertion_table(lines, settings)).loc[("apm_s", "average", 1)]["gain_p_holm"]
    )


@pytest.mark.parametrize(
    ("variants", "primary", "said"),
    [
        (("baseline", "apm_s"), {"variant": "baseline"}, "primary compares 'baseline' with itself"),
        (("baseline", "apm_s"), {"against": "apm_s"}, "primary compares 'apm_s' with itself"),
        (("baseline", "apm_s", "zero"), {"variant": "zero"}, "'zero' is not a main variant"),
        (("foreground", "apm_s"), {"variant": "apm_s"}, "primary.against: this run has not a baseline"),
        (("baseline", "foreground"), {"against": "baseline"}, "primary.variant: this run has not a main"),
        (("baseline", "apm_s"), {"variant": "nothing"}, "'nothing' is not in variants"),
    ],
)
def test_a_primary_comparison_that_cannot_be_shown_is_refused(variants, primary, said):
    with pytest.raises(CdfssError, match=said):
        table_settings({n: VARIANTS[n] for n in variants}, primary=primary)


def test_the_baseline_is_main_whatever_it_says():
    variants = {"baseline": {"main": False}, "apm_s": {"modules": ["apm_s"]}}
    settings = table_settings(variants, primary={"against": "baseline"})
    assert settings["primary"] == {"variant": "apm_s", "against": "baseline"}


def test_where_all_votes_are_of_another_rule_there_is_a_baseline_too():
    variants = {"plain": {"vote": "mean"}, "apm_s": {"modules": ["apm_s"], "vote": "mean"}}
    settings = table_settings(variants)
    assert (settings["baseline"], settings["variants"]["plain"]["kind"]) == ("plain", "baseline")
    assert "plain" in settings["shown"]["cost"]


def test_another_primary_comparison_can_be_named():
    variants = {n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}
    settings = table_settings(variants, shots=[1], primary={"variant": "foreground", "against": "apm_s"})
    lines = rows(variants=tuple(variants), shots=(1,))
    section = tables.main_table(pd.DataFrame(lines), settings).sections[0]
    assert section.lines[0][0] == "foreground − APM-S"
    expected = np.mean(
        [
            miou_by_hand(lines, variant="foreground", domain=d)
            - miou_by_hand(lines, variant="apm_s", domain=d)
            for d in ("lungs", "cells")
        ]
    )
    assert section.lines[0][1].startswith(f"{expected:+.2f} [")


def test_own_pictures_are_told_what_holds_for_new_ones():
    settings = table_settings(
        {n: VARIANTS[n] for n in ("baseline", "apm_s")},
        shots=[1],
        data={"cells": {"format": "folder", "root": "/"}},
    )
    assert settings["stated"] == {"lungs": "lists", "cells": "pictures"}
    lines = rows(variants=("baseline", "apm_s"), shots=(1,), episodes=60)
    for line in lines:  # every picture in three episodes
        line["query"], line["supports"] = (
            f"{line['episode'] % 20}.png",
            [f"{line['episode'] % 20 + 20}.png"],
        )
    table = tables.main_table(pd.DataFrame(lines), settings)
    cells = by_cell(table)
    for domain, reading in settings["stated"].items():
        cell = cells.loc[("apm_s", domain, 1)]
        for name in ("miou", "gain"):
            for end in ("low", "high"):
                assert cell[f"{name}_{end}"] == cell[f"{name}_{reading}_{end}"]
    assert any("new pictures of these domains (cells)" in note for note in table.notes)
    few = pd.DataFrame(lines).assign(query="0.png", supports=[["1.png"]] * len(lines))
    cell = by_cell(tables.main_table(few, settings)).loc[("apm_s", "cells", 1)]
    assert cell["miou_why"] == "2 pictures of cells are fewer than 20"
    assert np.isnan(cell["miou_low"])
    assert not np.isnan(cell["miou_lists_low"])


def test_source_trainings_are_averaged_and_their_spread_is_told():
    settings = table_settings({n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, shots=[1]) | {
        "sources": [0, 1, 2]
    }
    lines = []
    for source in (0, 1, 2):
        variants = ("baseline", "apm_s")
        generator = np.random.RandomState(source)
        for domain in ("lungs", "cells"):
            for variant in variants:
                lines += [
                    row(generator, domain, variant, 1, 0, episode) | {"source": source}
                    for episode in range(24)
                ]
    lines += rows(variants=("foreground",), shots=(1,))
    table = tables.main_table(pd.DataFrame(lines), settings)
    cell = by_cell(table).loc[("apm_s", "cells", 1)]
    values = [miou_by_hand(lines, variant="apm_s", domain="cells", source=s) for s in (0, 1, 2)]
    assert cell["miou"] == pytest.approx(np.mean(values))
    assert cell["source_sd"] == pytest.approx(np.std(values, ddof=1))
    assert (cell["sources"], cell["episodes"]) == (3, 24)
    assert cell["miou_training_low"] < cell["miou_low"] < cell["miou_high"] < cell["miou_training_high"]
    headings = [line[0] for line in of_shot(table, 1).lines]
    assert headings.count("sd over source trainings") == 2
    assert headings.count("mIoU, for the mean over other source trainings") == 2
    assert headings.count("difference, for the mean over other source trainings") == 1
    notes = " ".join(table.notes)
    assert "the source training, of which there are 3" in notes
    rows_of = pd.DataFrame(lines)
    with pytest.raises(CdfssError, match="apm_s, lungs, 1-shot, seed 0, source seed 2"):
        tables.main_table(rows_of[(rows_of["source"] != 2) | (rows_of["variant"] != "apm_s")], settings)


def test_an_average_is_as_uncertain_as_its_domains_together():
    table = by_cell(tables.main_table(pd.DataFrame(rows(episodes=40)), SETTINGS))

    def width(domain, name):
        cell = table.loc[("apm_s", domain, 1)]
        return cell[f"{name}_high"] - cell[f"{name}_low"]

    for name in ("miou", "gain"):
        expected = np.hypot(*(width(domain, name) for domain in SETTINGS["domains"])) / 2
        assert width("average", name) == pytest.approx(expected, rel=0.1)


def test_fb_iou_is_the_mean_of_foreground_and_background():
    lines = rows()
    table = by_cell(tables.main_table(pd.DataFrame(lines), SETTINGS))
    by_domain = {}
    for domain in SETTINGS["domains"]:
        mine = chosen(lines, variant="apm_s", domain=domain, shot=5)
        ious = [
            sum(line[f"intersection_{where}"] for line in mine)
            / sum(line[f"union_{where}"] for line in mine)
            for where in ("background", "foreground")
        ]
        by_domain[domain] = 100 * sum(ious) / 2
        assert table.at[("apm_s", domain, 5), "fb_iou"] == pytest.approx(by_domain[domain])
    assert table.at[("apm_s", "average", 5), "fb_iou"] == pytest.approx(sum(by_domain.values()) / 2)


def test_scores_of_other_papers_are_of_the_same_rows():
    lines = rows()
    for line in lines:  # large pictures count more at their own size
        for key in [key for key in line if key.startswith("original_")]:
            line[key] *= 1 + line["episode"]
    table = by_cell(tables.main_table(pd.DataFrame(lines), SETTINGS))
    scores = {"miou_batchwise": [], "miou_original": []}
    for domain in SETTINGS["domains"]:
        mine = pd.DataFrame(chosen(lines, variant="apm_s", domain=domain, shot=5))
        scores["miou_batchwise"].append(100 * results.batchwise_miou(mine))
        own = mine.assign(
            **{key: mine[f"original_{key}"] for key in ("intersection_foreground", "union_foreground")}
        )
        scores["miou_original"].append(miou_by_hand(own.to_dict("records")))
        for name, values in scores.items():
            assert table.at[("apm_s", domain, 5), name] == pytest.approx(values[-1])
            assert values[-1] != pytest.approx(table.at[("apm_s", domain, 5), "miou"])
    for name, values in scores.items():
        assert table.at[("apm_s", "average", 5), name] == pytest.approx(np.mean(values))
    old = pd.DataFrame(lines).assign(original_union_foreground=np.nan)
    assert np.isnan(by_cell(tables.main_table(old, SETTINGS)).at[("apm_s", "cells", 5), "miou_original"])


def test_a_diverged_adaptation_is_told_where_it_counts():
    lines = rows()
    for line in chosen(lines, variant="apm_s", domain="cells", shot=5)[:3]:
        line["last_loss"] = float("nan")
    notes = tables.main_table(pd.DataFrame(lines), SETTINGS).notes
    assert (
        "Episodes whose adaptation diverged (no finite loss), counted as they were predicted: APM-S on "
        "cells, 5-shot: 3." in notes
    )
    assert not any("diverged" in note for note in tables.main_table(pd.DataFrame(rows()), SETTINGS).notes)


def test_episodes_that_the_published_rule_decides_are_told_by_domain():
    variants = VARIANTS | {"other": {"vote": "majority", "main": False}}
    variants["apm_m"] = {"title": "APM-M", "modules": ["apm_m"]}
    settings = table_settings(variants, shots=[1, 5])
    lines = rows(variants=tuple(variants), seeds=(0,))
    for line in lines:
        line |= {"most_votes": line["shot"], "voted_pixels": 0} if line["variant"] != "foreground" else {}
    for variant, domain, number in (
        ("baseline", "cells", 1),
        ("apm_s", "cells", 2),
        ("apm_m", "cells", 3),
        ("zero", "cells", 2),
        ("other", "cells", 6),  # the rule that is counted here is not its own
        ("baseline", "lungs", 4),
    ):
        for line in chosen(lines, variant=variant, domain=domain, shot=5)[:number]:
            line |= {"most_votes": 4, "voted_pixels": 3}
    expected = (
        "Episodes with pixels that the published rule for votes (foreground by at least half of the "
        "largest number that any pixel got) labels otherwise than a majority of the supports: "
        "lungs, 5-shot: 4 of 24 with Baseline; cells, 5-shot: 1 of 24 with Baseline, up to "
    )
    for make, shown in ((tables.main_table, "main"), (tables.insertion_table, "insertion")):
        mine = [line for line in lines if line["variant"] in settings["shown"][shown]]
        notes = make(pd.DataFrame(mine), settings).notes
        assert expected + "3 of 24 with others (APM-M)." in notes
    for line in lines:
        line["voted_pixels"] = None if line["variant"] == "foreground" else 0
    assert not any(
        "(foreground by" in note for note in tables.main_table(pd.DataFrame(lines), settings).notes
    )


def test_episodes_in_which_modules_cannot_act_are_told_once():
    lines = rows(seeds=(0, 1))
    for line in lines:
        if line["variant"] != "foreground":
            line["supports_unseen"] = 0
    for domain, shot, seed, number in (("cells", 1, 0, 3), ("cells", 1, 1, 2), ("lungs", 5, 0, 1)):
        for line in chosen(lines, domain=domain, shot=shot, seed=seed):
            if line["variant"] != "foreground" and line["episode"] < number:
                line["supports_unseen"] = shot
    for line in chosen(lines, domain="cells", shot=5, seed=0, episode=5):
        line["supports_unseen"] = None if line["variant"] == "foreground" else 4  # the fifth is seen
    settings = table_settings(VARIANTS, shots=[1, 5], seeds=[0, 1])
    expected = (
        "Episodes in which modules cannot act, since no support's mask holds a position of the "
        "stride-32 maps: lungs, 5-shot: 1 of 48; cells, 1-shot: 5 of 48."
    )
    for make in (tables.main_table, tables.insertion_table, tables.alternatives_table):
        assert expected in make(pd.DataFrame(lines), settings).notes


def test_of_rows_that_count_no_votes_nothing_is_said(tmp_path):
    old = pd.DataFrame(rows()).drop(columns=["most_votes", "voted_pixels", "supports_unseen"])
    old.to_parquet(tmp_path / "old.parquet")
    notes = tables.main_table(results.load(tmp_path / "old.parquet"), SETTINGS).notes
    assert notes == tables.main_table(pd.DataFrame(rows()), SETTINGS).notes
    assert not any("rule for votes" in note or "cannot act" in note for note in notes)


def test_gains_of_table_4_are_paired():
    measured = feature_rows(SETTINGS, ("baseline", "apm_s"), episodes=24)
    before = {
        (line["domain"], line["episode"]): line["cka"] for line in chosen(measured, variant="baseline")
    }
    for line in chosen(measured, variant="apm_s"):
        line["cka"] = before[line["domain"], line["episode"]] - 0.125
    table = tables.similarity_table(pd.DataFrame(measured), SETTINGS)
    gains = table.numbers.set_index("variant").loc["apm_s", ["gain", "gain_low", "gain_high"]]
    assert gains.to_numpy(float) == pytest.approx(np.full((3, 3), 0.125))


def test_best_and_worst_filter_are_named_when_all_are_equal():
    filtered = [line | {"intersection_foreground": 0} for line in filtered_rows(SETTINGS)]
    table = tables.information_table(pd.DataFrame(filtered), None, SETTINGS)
    headings = [line[0].split(":")[0] for line in table.sections[0].lines]
    difference = ["− no filter", "episodes changed; without one"]
    assert headings == ["no filter", "best filter", *difference, "worst filter", *difference]


def test_seeds_are_averaged_and_their_spread_is_told(tmp_path):
    lines = rows(seeds=(0, 1, 2))
    settings = table_settings(VARIANTS, shots=[1, 5], seeds=[0, 1, 2])
    table = tables.main_table(pd.DataFrame(lines), settings)
    cell = by_cell(table).loc[("apm_s", "cells", 5)]
    values = [miou_by_hand(lines, variant="apm_s", domain="cells", shot=5, seed=s) for s in (0, 1, 2)]
    assert cell["miou"] == pytest.approx(np.mean(values))
    assert cell["seed_sd"] == pytest.approx(np.std(values, ddof=1))
    assert cell["seeds"] == 3
    average = by_cell(table).loc[("apm_s", "average", 5)]
    by_seed = [
        np.mean(
            [miou_by_hand(lines, variant="apm_s", domain=d, shot=5, seed=s) for d in ("lungs", "cells")]
        )
        for s in (0, 1, 2)
    ]
    assert average["seed_sd"] == pytest.approx(np.std(by_seed, ddof=1))
    assert list({line[0] for line in of_shot(table, 1).lines if line[0].startswith("sd")}) == [
        "sd over seeds"
    ]


def test_table_2_shows_what_the_rule_for_votes_is_worth():
    variants = VARIANTS | {"mean": {"title": "Mean", "vote": "mean", "main": False}}
    settings = table_settings(variants, shots=[1, 5])
    lines = rows(variants=tuple(variants))
    table = tables.insertion_table(pd.DataFrame(lines), settings)
    aside = ("− baseline", "episodes changed; without one")
    shown = [line[0] for line in table.sections[0].lines if line[0] not in aside]
    assert shown == ["foreground", "Baseline", "Mean", "Zero", "acpa", "APM-S", "episodes"]
    cell = by_cell(table).loc[("mean", "lungs", 5)]
    expected = [miou_by_hand(lines, variant=v, domain="lungs", shot=5) for v in ("mean", "baseline")]
    assert cell["gain"] == pytest.approx(expected[0] - expected[1])
    (lacks,) = [note for note in table.notes if note.startswith("Not in this table")]
    assert "votes" not in lacks
    without = tables.insertion_table(pd.DataFrame(rows()), SETTINGS).notes
    assert any("Not in this table: the baseline with another rule for votes" in note for note in without)


def test_table_2_shows_what_inserts_or_tunes_modules():
    table = tables.insertion_table(pd.DataFrame(rows()), SETTINGS)
    aside = ("− baseline", "episodes changed; without one")
    shown = [line[0] for line in table.sections[0].lines if line[0] not in aside]
    # The variant that only differs in its learning rate is a point of a figure.
    assert shown == ["foreground", "Baseline", "Zero", "acpa", "APM-S", "episodes"]
    (lacks,) = [note for note in table.notes if note.startswith("Not in this table")]
    assert "modules tuned through the list" in lacks
    assert "config/extended.yaml" in lacks


def test_table_5_shows_fine_tuning_beside_the_modules():
    lines = rows()
    table = tables.alternatives_table(pd.DataFrame(lines), SETTINGS)
    assert list(dict.fromkeys(table.numbers["variant"])) == ["baseline", "tuned", "apm_s"]
    cell = by_cell(table).loc[("tuned", "lungs", 1)]
    expected = [miou_by_hand(lines, variant=v, domain="lungs", shot=1) for v in ("tuned", "baseline")]
    assert cell["gain"] == pytest.approx(expected[0] - expected[1])
    assert any("mutual information in the loss" in note for note in table.notes)


def test_table_6_tells_parameters_time_and_memory():
    lines = rows()
    table = tables.cost_table(pd.DataFrame(lines), SETTINGS)
    line = table.numbers.set_index(["variant", "shot"]).loc[("apm_s", 5)]
    mine, base = (chosen(lines, variant=v, shot=5) for v in ("apm_s", "baseline"))
    seconds = [entry["seconds"] for entry in mine]
    assert line["seconds"] == pytest.approx(np.median(seconds))
    assert (line["seconds_low"], line["seconds_high"]) == pytest.approx(np.percentile(seconds, (25, 75)))
    assert line["factor"] == pytest.approx(
        np.median([a["seconds"] / b["seconds"] for a, b in zip(mine, base)])
    )
    assert line["peak_memory_mb"] == pytest.approx(max(entry["peak_memory_mb"] for entry in mine))
    assert line["parameters_added"] == 338
    assert line["episodes"] == 48
    assert line["fit_seconds"] == pytest.approx(np.median([entry["fit_seconds"] for entry in mine]))
    by_domain = [miou_by_hand(lines, variant="apm_s", domain=d, shot=5) for d in SETTINGS["domains"]]
    assert line["miou"] == pytest.approx(np.mean(by_domain))
    needs = table.numbers.set_index("variant")["needs"].to_dict()
    assert (needs["foreground"], needs["apm_s"]) == ("nothing", "source")
    text = "\n".join(" ".join(cells) for section in table.sections for cells in section.lines)
    assert re.search("foreground .* no ", text)
    assert re.search("APM-S .* yes ", text)
    assert "fast" not in set(table.numbers["variant"])


def filter_counts(lines, domain, cell):
    mine = [
        line
        for line in lines
        if line["domain"] == domain and f"amplitude {line['amplitude']}, phase {line['phase']}" == cell
    ]
    return mine, miou_by_hand(mine)


def test_table_3_finds_best_and_worst_filter_and_pairs_them_with_no_filter():
    filtered, measured = filtered_rows(SETTINGS), feature_rows(SETTINGS, ("baseline", "apm_s"))
    table = tables.information_table(pd.DataFrame(filtered), pd.DataFrame(measured), SETTINGS)
    numbers = table.numbers.set_index(["domain", "row"])
    bands = ("all", "low", "high")
    for domain in SETTINGS["domains"]:
        names = [f"amplitude {a}, phase {p}" for a in bands for p in bands][1:]
        ranked = sorted(names, key=lambda name: filter_counts(filtered, domain, name)[1])
        plain, reference = filter_counts(filtered, domain, measurement.NO_FILTER)
        for heading, name in (("best filter", ranked[-1]), ("worst filter", ranked[0])):
            line, (mine, miou) = numbers.loc[(domain, heading)], filter_counts(filtered, domain, name)
            assert line["cell"] == name
            assert line["miou"] == pytest.approx(miou)
            assert line["miou_gain"] == pytest.approx(miou - reference)
            for side in ("support", "query"):
                information = np.mean([entry[f"{side}_information"] for entry in mine])
                chance = np.mean([entry[f"{side}_chance"] for entry in mine])
                before = np.mean([entry[f"{side}_information"] for entry in plain])
                assert line[f"{side}_information"] == pytest.approx(information)
                assert line[f"{side}_above_chance"] == pytest.approx(information - chance)
                assert line[f"{side}_information_gain"] == pytest.approx(information - before)
        after = chosen(measured, domain=domain, variant="apm_s")
        last = [
            {
                "class_id": entry["class_id"],
                "intersection_foreground": entry["step_intersection"][-1],
                "union_foreground": entry["step_union"][-1],
            }
            for entry in after
        ]
        assert numbers.loc[(domain, "after APM-S"), "miou"] == pytest.approx(miou_by_hand(last))
        assert (domain, "after Baseline") not in numbers.index


def test_table_4_is_one_minus_cka_with_paired_differences():
    measured = feature_rows(SETTINGS, ("baseline", "apm_s"))
    table = tables.similarity_table(pd.DataFrame(measured), SETTINGS)
    numbers = table.numbers.set_index(["variant", "domain"])
    means = {}
    for variant in ("baseline", "apm_s"):
        for domain in SETTINGS["domains"]:
            mine = chosen(measured, variant=variant, domain=domain)
            means[variant, domain] = 1 - np.mean([entry["cka"] for entry in mine])
            assert numbers.at[(variant, domain), "distance"] == pytest.approx(means[variant, domain])
    gain = np.mean([means["apm_s", d] - means["baseline", d] for d in SETTINGS["domains"]])
    assert numbers.at[("apm_s", "average"), "gain"] == pytest.approx(gain)


def test_tables_of_features_say_what_a_run_without_models_lacks():
    for table in (
        tables.information_table(None, None, SETTINGS),
        tables.similarity_table(None, SETTINGS),
    ):
        assert table.sections == []
        assert table.notes[0].startswith("Not in this run: a ")
    filtered = pd.DataFrame(filtered_rows(SETTINGS))
    table = tables.information_table(filtered, None, SETTINGS)
    assert any("a main variant with APM" in note for note in table.notes)
    assert len(table.sections[0].lines) == 7


def test_without_a_baseline_there_are_no_differences():
    settings = table_settings({"copy": {"method": "copy"}, "apm_s": {"modules": ["apm_s"]}}, shots=[1])
    table = tables.main_table(pd.DataFrame(rows(variants=("copy", "apm_s"), shots=(1,))), settings)
    assert "gain" not in table.numbers
    assert [line[0] for line in table.sections[0].lines] == ["copy", "apm_s", "episodes"]
    assert any(note.startswith("Not in this run: the source model as it is") for note in table.notes)


def test_missing_combinations_are_named():
    table = pd.DataFrame(rows())
    table = table[(table["variant"] != "apm_s") | (table["domain"] != "cells")]
    with pytest.raises(
        CdfssError, match="2 combinations have no evaluation rows: apm_s, cells, 1-shot, seed 0"
    ):
        tables.main_table(table, SETTINGS)


def test_quoted_values_are_marked_and_stand_beside_ours(tmp_path):
    settings = table_settings(
        {n: VARIANTS[n] for n in ("baseline", "apm_s")},
        ("fss1000", "isic2018"),
        shots=[1, 5],
        published=True,
    )
    data = pd.DataFrame(rows(("fss1000", "isic2018"), ("baseline", "apm_s")))
    table = tables.main_table(data, settings)
    cell = by_cell(table).loc[("apm_s", "isic2018", 5)]
    assert cell["published"] == 44.16
    assert cell["published_difference"] == pytest.approx(cell["miou"] - 44.16)
    assert by_cell(table).at[("baseline", "average", 1), "published"] == pytest.approx((77.54 + 32.65) / 2)
    section = of_shot(table, 1)
    quoted = [line for line, role in zip(section.lines, section.roles) if role == "quoted"]
    assert ["quoted: PATNet", "78.59", "41.16", "59.88"] in quoted
    assert all(line[0].startswith("quoted: ") for line in quoted)
    assert not any("[" in cell for line in quoted for cell in line)
    assert any("printed in papers" in note for note in table.notes)


PAPER = ("fss1000", "deepglobe", "isic2018", "chestxray")


def test_a_domain_that_the_paper_does_not_have_is_compared_with_nothing():
    variants = {n: VARIANTS[n] for n in ("baseline", "apm_s")}
    settings = table_settings(variants, ("chestxray", "mine"), shots=[1], published=True)
    lines = rows(("chestxray", "mine"), ("baseline", "apm_s"), (1,))
    section = of_shot(tables.main_table(pd.DataFrame(lines), settings), 1)
    (quoted,) = [line for line in section.lines if line[0] == "quoted: paper"][1:]
    assert quoted[1] == "73.55"
    assert quoted[2:] == ["", ""]


def test_tables_of_features_quote_the_paper():
    variants = {n: VARIANTS[n] for n in ("baseline", "apm_s")}
    settings = table_settings(variants, PAPER, shots=[1], published=True)
    measured = pd.DataFrame(feature_rows(settings, ("baseline", "apm_s")))
    lines = tables.similarity_table(measured, settings).sections[0].lines
    assert ["quoted: paper", "0.3481", "0.2678", "0.2433", "0.5025", "0.3404"] in lines
    table = tables.information_table(pd.DataFrame(filtered_rows(settings)), measured, settings)
    assert ["quoted: apm_s", "73.55", "1.2610", "", "1.2620", ""] in table.sections[3].lines


def test_the_files_say_the_same(tmp_path):
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "tex", "html", "origin")}
    tables.write(tables.main_table(pd.DataFrame(rows()), SETTINGS), paths)
    texts = {kind: path.read_text() for kind, path in paths.items()}
    assert texts["md"].startswith("# Demo: Table 1. ")
    assert "Demo: Table 1. " in texts["tex"]
    for line in pd.read_csv(paths["csv"]).itertuples():
        assert not np.isnan(line.miou_low)
        cell = f"{line.miou:.2f} [{line.miou_low:.2f}, {line.miou_high:.2f}]"
        for kind in ("md", "tex", "html"):
            assert cell in texts[kind]
    lines = [line for line in texts["md"].splitlines() if line.startswith("|")]
    changed = "episodes changed; without one"
    expected = ["APM-S − Baseline", "p", changed]
    expected += [
        "mIoU, %",
        ":--",
        "foreground",
        "− baseline",
        changed,
        "Baseline",
        "APM-S",
        "− baseline",
        changed,
    ]
    found = [line.split("|")[1].strip() for line in lines[2 : 2 + len(expected)]]
    assert [text if not text.startswith(":-") else ":--" for text in found] == expected


def test_signs_of_the_formats_are_escaped(tmp_path):
    variants = {"baseline": {"title": "A | B & C_1 <b>"}}
    settings = table_settings(variants, shots=[1], title="50 % & more")
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "tex", "html", "origin")}
    tables.write(tables.main_table(pd.DataFrame(rows(variants=("baseline",), shots=(1,))), settings), paths)
    assert "A \\| B & C_1 \\<b>" in paths["md"].read_text()
    latex = paths["tex"].read_text()
    assert "50 \\% \\& more" in latex
    assert "A \\textbar{} B \\& C\\_1" in latex
    assert "A | B &amp; C_1 &lt;b&gt;" in paths["html"].read_text()


def test_rows_and_predictions_survive_their_files(tmp_path):
    lines = rows()[:6]
    results.save(lines, tmp_path / "a.parquet", {"device": "cpu"})
    loaded = results.load([tmp_path / "a.parquet"])
    assert loaded["intersection_foreground"].tolist() == [line["intersection_foreground"] for line in lines]
    assert results.facts(tmp_path / "a.parquet") == {"device": "cpu"}
    mask = np.random.RandomState(0).rand(9, 9) < 0.5
    facts = {"settings": {"variant": "apm_s"}}
    results.save_predictions({3: mask.astype(np.uint8)}, tmp_path / "p.parquet", facts)
    assert (results.load_predictions([tmp_path / "p.parquet"])[3] == mask).all()
    of_variant = results.predictions_by_variant([tmp_path / "p.parquet"], ["apm_s"], [3, 4])
    assert (of_variant["apm_s"][3] == mask).all()
    results.save(lines[:2], tmp_path / "x" / "rows" / "0.parquet", {})
    results.save(lines[1:], tmp_path / "x" / "rows" / "1.parquet", {})
    with pytest.raises(CdfssError, match=r"is there twice, in .*rows/0\.parquet and .*rows/1\.parquet"):
        results.load(tmp_path / "x")
    for size in (32, 64):
        facts = {"settings": {"image_size": size}}
        results.save(lines[size // 32 :][:1], tmp_path / "y" / f"{size}.parquet", facts)
    with pytest.raises(
        CdfssError,
        match=r"image sizes differ \(32 in 1 files; 64 in 1 files\)\. The older 1: .*32\.parquet",
    ):
        results.load(tmp_path / "y")
    pd.DataFrame(lines).to_parquet(tmp_path / "own.parquet")
    assert len(results.load(tmp_path / "own.parquet")) == len(lines)
    with pytest.raises(CdfssError, match="does not say what it was made from"):
        results.predictions_by_variant([tmp_path / "own.parquet"], ["apm_s"], [0])
    filtered = filtered_rows(SETTINGS)
    results.save(filtered, tmp_path / "z" / "rows" / "f.parquet", {}, measurement.FILTERED)
    results.save(lines, tmp_path / "z" / "r.parquet", {})
    assert len(results.load(tmp_path / "z")) == len(lines)
    with pytest.raises(CdfssError, match="no evaluation rows"):
        results.load(tmp_path / "empty")


def test_rows_of_several_source_models_are_several(tmp_path):
    generator = np.random.RandomState(0)
    lines = [row(generator, "lungs", "apm_s", 1, 0, e, source) for source in (0, 1) for e in range(3)]
    lines += [row(generator, "lungs", "copy", 1, 0, e) for e in range(3)]
    results.save(lines, tmp_path / "rows" / "0.parquet", {})
    results.save(lines, tmp_path / "cost.parquet", {}, results.COST)
    loaded = results.load(tmp_path)
    assert loaded["source"].dtype == "Int32"
    assert loaded["source"].fillna(-1).tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1]
    both = results.with_cost(loaded, [tmp_path / "cost.parquet"])
    assert both["seconds"].tolist() == [line["seconds"] for line in lines]
    for source, there in ((0, [0, 0, 0, None, None, None]), (None, [None] * 3)):
        found = results.of_source(loaded, source)["source"]
        assert found.astype(object).where(found.notna(), None).tolist() == there
    results.save(lines[4:5], tmp_path / "rows" / "1.parquet", {})
    with pytest.raises(
        CdfssError, match=r"episode 1 .* seed 0, source seed 1 is there twice, in .*0\.parquet and"
    ):
        results.load(tmp_path)
    results.save(lines[7:8], tmp_path / "rows" / "1.parquet", {})
    with pytest.raises(
        CdfssError, match=r"episode 1 of lungs, copy, 1-shot, seed 0 is there twice, in .*0\.pa"
    ):
        results.load(tmp_path)


def test_rows_and_cost_of_before_know_no_source(tmp_path):
    lines = rows()[:6]
    results.save(lines, tmp_path / "now.parquet", {})
    pq.write_table(pq.read_table(tmp_path / "now.parquet").drop(["source"]), tmp_path / "old.parquet")
    loaded = results.load(tmp_path / "old.parquet")
    assert loaded["source"].dtype == "Int32"
    assert loaded["source"].isna().all()
    results.save(lines, tmp_path / "cost.parquet", {}, results.COST)
    pq.write_table(pq.read_table(tmp_path / "cost.parquet").drop(["source"]), tmp_path / "c.parquet")
    both = results.with_cost(loaded, [tmp_path / "c.parquet"])
    assert both["seconds"].tolist() == [line["seconds"] for line in lines]


def test_measurements_survive_their_files(tmp_path):
    lines = feature_rows(SETTINGS, ("baseline", "apm_s"))
    results.save(lines, tmp_path / "f.parquet", {"a": 1}, measurement.FEATURES)
    loaded = measurement.load([tmp_path / "f.parquet"])
    assert len(measurement.load(tmp_path / "f.parquet")) == len(lines)
    assert np.allclose(loaded["phases"].iloc[3], lines[3]["phases"])
    assert (loaded["factors"].str.len() == 2).sum() == len(lines) / 2
    assert np.allclose(loaded["factor_maps"].iloc[-1][1], lines[-1]["factor_maps"][1])
    assert measurement.load([]) is None


def test_all_tables_of_a_run_take_seconds():
    lines = pd.DataFrame(rows(episodes=300))
    begin = time.process_time()
    for make in (tables.main_table, tables.insertion_table, tables.alternatives_table, tables.cost_table):
        make(lines, SETTINGS)
    assert time.process_time() - begin < 30


def test_tables_and_figures_need_no_torch():
    modules = (
        "cdfss.reports.tables, cdfss.reports.figures.rows, cdfss.reports.figures.features, "
        "cdfss.reports.figures.filtering, cdfss.reports.figures.training, cdfss.reports.page, "
        "cdfss.reports.gallery, cdfss.configuration.preflight, cdfss.evaluation.evaluate, "
        "cdfss.evaluation.measurement, cdfss.methods.hsnet.method, cdfss.methods.ridge, "
        "cdfss.methods.propagation, cdfss.methods.prototypes"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_settings_are_plain_values():
    assert json.loads(json.dumps(SETTINGS)) == SETTINGS


def test_an_episode_that_diverged_is_left_out_of_all_variants():
    measured = feature_rows(SETTINGS, ("baseline", "apm_s"))
    (bad,) = [line for line in chosen(measured, variant="apm_s", domain="cells") if line["episode"] == 3]
    bad["cka"] = bad["query_information"] = float("nan")
    table = tables.similarity_table(pd.DataFrame(measured), SETTINGS)
    assert "Episodes left out, since an adaptation diverged: cells 1." in table.notes
    kept = [
        line["cka"] for line in chosen(measured, variant="baseline", domain="cells") if line["episode"] != 3
    ]
    numbers = table.numbers.set_index(["variant", "domain"])
    assert numbers.at[("baseline", "cells"), "distance"] == pytest.approx(1 - np.mean(kept))
    assert table.sections[0].lines[-1] == ["episodes", "6", "5", "11"]
    filtered = pd.DataFrame(filtered_rows(SETTINGS))
    table = tables.information_table(filtered, pd.DataFrame(measured), SETTINGS)
    assert set(table.numbers.query("domain == 'cells'")["episodes"]) == {5}
    values = table.numbers.set_index("row")[["miou", "query_information", "query_above_chance"]]
    assert np.isfinite(values).all(axis=None)


def test_a_variant_that_always_diverged_leaves_its_cells_empty():
    measured = feature_rows(SETTINGS, ("baseline", "apm_s"))
    for line in chosen(measured, variant="apm_s", domain="cells"):
        line["cka"] = line["query_information"] = float("nan")
    table = tables.similarity_table(pd.DataFrame(measured), SETTINGS)
    assert "Left out, since adaptation diverged in most episodes: APM-S on cells." in table.notes
    numbers = table.numbers.set_index(["variant", "domain"])
    assert numbers.loc["apm_s", "distance"].isna().tolist() == [False, True, True]
    assert numbers.loc["baseline", "distance"].notna().all()
    line = table.sections[0].lines[1]
    assert line[0] == "APM-S"
    assert line[1] != ""
    assert line[2:] == ["", ""]
    filtered = pd.DataFrame(filtered_rows(SETTINGS))
    rows_of = tables.information_table(filtered, pd.DataFrame(measured), SETTINGS).numbers
    assert rows_of.set_index("domain").loc["cells", "row"].tolist() == [
        "no filter",
        "best filter",
        "worst filter",
    ]


def test_a_domain_of_which_no_episode_is_left_has_no_section():
    settings = table_settings({n: {"modules": [n]} for n in ("apm_s", "apm_m")}, shots=[1])
    measured = feature_rows(settings, ("apm_s", "apm_m"))
    for line in chosen(measured, domain="cells"):
        if (line["episode"] < 3) == (line["variant"] == "apm_s"):
            line["query_information"] = line["cka"] = float("nan")
    table = tables.information_table(
        pd.DataFrame(filtered_rows(settings)), pd.DataFrame(measured), settings
    )
    assert [section.heading for section in table.sections] == ["lungs"]
    assert "Episodes left out, since an adaptation diverged: cells 6." in table.notes
    assert any("episodes: lungs 6." in note for note in table.notes)
    cells = tables.similarity_table(pd.DataFrame(measured), settings).sections[0].lines
    assert cells[-1] == ["episodes", "6", "0", "6"]


def test_quoted_values_are_those_of_the_same_number_of_shots():
    variants = {n: VARIANTS[n] for n in ("baseline", "apm_s")}
    settings = table_settings(variants, PAPER, shots=[5], published=True)
    measured = pd.DataFrame(feature_rows(settings, ("baseline", "apm_s")))
    filtered = pd.DataFrame(filtered_rows(settings))
    for table in (
        tables.similarity_table(measured, settings),
        tables.information_table(filtered, measured, settings),
    ):
        assert not any("quoted" in line[0] for section in table.sections for line in section.lines)


def test_devices_are_not_mixed():
    lines = rows(variants=("foreground", "baseline", "apm_s"), shots=(1,))
    for line in lines:
        if line["variant"] != "foreground":
            line["device"] = "A100" if line["episode"] % 2 else "H100"
    settings = table_settings({n: VARIANTS[n] for n in ("foreground", "baseline", "apm_s")}, shots=[1])
    numbers = tables.cost_table(pd.DataFrame(lines), settings).numbers.set_index(["variant", "device"])
    assert list(numbers.index) == [
        ("foreground", "cpu"),
        ("baseline", "H100"),
        ("baseline", "A100"),
        ("apm_s", "H100"),
        ("apm_s", "A100"),
    ]
    assert np.isnan(numbers.at[("foreground", "cpu"), "factor"])
    mine, base = (chosen(lines, variant=v, device="A100") for v in ("apm_s", "baseline"))
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(mine, base)]
    assert numbers.at[("apm_s", "A100"), "factor"] == pytest.approx(np.median(ratios))


def test_rows_of_an_older_version_are_refused(tmp_path):
    old = pd.DataFrame(rows()[:2]).drop(columns=["steps", "parameters_tuned"])
    old.to_parquet(tmp_path / "old.parquet")
    with pytest.raises(CdfssError, match="has no column steps, parameters_tuned: it was made by an older"):
        results.load([tmp_path / "old.parquet"])


RIVALS = {
    "baseline": {"title": "Baseline"},
    "apm_s": {"title": "APM-S", "modules": ["apm_s"]},
    "gfnet": {"title": "GFNet", "modules": ["gfnet"], "main": False},
    "whitening": {"title": "Whitening", "modules": ["whitening"], "main": False},
    "mmc": {"title": "MMC (oracle)", "modules": ["mmc_oracle"], "main": False},
    "fptrans": {"title": "FPTrans", "method": "fptrans", "main": False},
    "fptrans_apm_s": {"title": "FPTrans + APM-S", "method": "fptrans", "modules": ["apm_s"], "main": False},
}


def test_tables_7_to_9_hold_each_family_beside_its_own_baseline_and_the_printed_values():
    domains = ("fss1000", "chestxray")
    settings = table_settings(RIVALS, domains, shots=[1], published=True)
    lines = rows(domains, tuple(RIVALS), shots=(1,))
    made = {7: tables.transformer_table(pd.DataFrame(lines), settings)}
    made |= {n: tables.rivals_table(n, pd.DataFrame(lines), settings) for n in (8, 9)}
    shown = {n: list(dict.fromkeys(table.numbers["variant"])) for n, table in made.items()}
    assert shown == {
        7: ["fptrans", "fptrans_apm_s"],
        8: ["baseline", "gfnet", "apm_s"],
        9: ["baseline", "whitening", "mmc", "apm_s"],
    }
    of_baseline = {7: "fptrans", 8: "baseline", 9: "baseline"}
    for number, table in made.items():
        numbers, baseline = by_cell(table), of_baseline[number]
        assert numbers.loc[baseline]["gain"].isna().all()
        for variant in set(shown[number]) - {baseline}:
            for domain in domains:
                miou, against = (
                    miou_by_hand(lines, variant=name, domain=domain) for name in (variant, baseline)
                )
                assert numbers.at[(variant, domain, 1), "miou"] == pytest.approx(miou)
                assert numbers.at[(variant, domain, 1), "gain"] == pytest.approx(miou - against)
    printed = {
        n: [line[0] for line, role in zip(section.lines, section.roles) if role == "quoted"]
        for n, section in ((n, of_shot(table, 1)) for n, table in made.items())
    }
    assert printed[7] == ["quoted: PerSAM", "quoted: FPTrans", "quoted: FPTrans + APM-S"]
    assert printed[8] == ["quoted: DFF", "quoted: GFNet", "quoted: ARP", "quoted: DAC"]
    assert printed[9] == [
        f"quoted: {name}" for name in ("MMC (simple)", "MMC (oracle)", "SRIP", "whitening")
    ]
    (dff,) = [line for line in of_shot(made[8], 1).lines if line[0] == "quoted: DFF"]
    assert dff[1:] == ["78.18", "60.29", f"{(78.18 + 60.29) / 2:.2f}"]
    titles = [line[0] for line in of_shot(made[9], 1).lines]
    assert "MMC (oracle) (sees the query's mask)" in titles


def test_table_7_without_a_plain_transformer_compares_with_nothing():
    variants = {name: RIVALS[name] for name in ("baseline", "fptrans_apm_s")}
    settings = table_settings(variants, shots=[1])
    table = tables.transformer_table(pd.DataFrame(rows(variants=("fptrans_apm_s",), shots=(1,))), settings)
    assert "gain" not in table.numbers
    assert any("Not in this run: FPTrans as it is" in note for note in table.notes)
    assert not any("Baseline: FPTrans" in note or "self-pairs" in note for note in table.notes)


def test_a_cost_beside_a_baseline_of_a_given_model_has_its_factor():
    settings = table_settings({"baseline": {}, "patnet": {"method": "patnet"}}, shots=[1])
    generator = np.random.RandomState(0)
    lines = [
        row(generator, domain, variant, 1, 0, episode, source)
        for domain in settings["domains"]
        for variant, source in (("baseline", None), ("patnet", 0))
        for episode in range(24)
    ]
    frame = pd.DataFrame(lines).astype({"source": "Int32"})
    factors = tables.cost_table(frame, settings).numbers.set_index("variant")["factor"]
    assert factors["baseline"] == 1
    assert np.isfinite(factors["patnet"])


def test_measurements_of_another_version_are_refused_in_words(tmp_path):
    results.save(feature_rows(SETTINGS, ("baseline",)), tmp_path / "f.parquet", {}, measurement.FEATURES)
    old = pq.read_table(tmp_path / "f.parquet").drop(["factors", "factor_maps"])
    pq.write_table(old, tmp_path / "old.parquet")
    with pytest.raises(CdfssError, match="no column 'factors': it was measured by another version"):
        measurement.load([tmp_path / "old.parquet"])


def test_tables_7_to_9_say_what_a_run_lacks():
    settings = table_settings({"baseline": {}}, shots=[1])
    mine = pd.DataFrame(rows(variants=("baseline",), shots=(1,)))
    for table, lacks in (
        (tables.transformer_table(None, settings), "FPTrans with modules"),
        (tables.rivals_table(8, mine, settings), "other frequency methods in APM's place"),
        (tables.rivals_table(9, mine, settings), "channel-correlation methods in APM's place"),
    ):
        assert any(note.startswith(f"Not in this table: {lacks}") for note in table.notes), table.notes
