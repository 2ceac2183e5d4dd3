import numpy as np
import pandas as pd
import pytest

from cdfss import CdfssError, results, tables

SETTINGS = {
    "run": "x",
    "title": "Demo",
    "published": False,
    "domains": {"lungs": "Lungs", "cells": "Cells"},
    "variants": {"baseline": "Baseline", "apm_s": "APM-S"},
    "shots": [1, 5],
}


def rows(domains=("lungs", "cells"), variants=("baseline", "apm_s"), shots=(1, 5), seeds=(0,), seed=0):
    generator = np.random.RandomState(seed)
    lines = []
    for domain in domains:
        for variant in variants:
            for shot in shots:
                for s in seeds:
                    for episode in range(6):
                        union = generator.randint(50, 100, 2)
                        lines.append(
                            {
                                "domain": domain,
                                "variant": variant,
                                "shot": shot,
                                "seed": s,
                                "episode": episode,
                                "class_id": episode % 2,
                                "class_name": str(episode % 2),
                                "query": f"{episode}.png",
                                "supports": ["a.png"],
                                "intersection_background": int(union[0] // 2),
                                "intersection_foreground": int(generator.randint(0, 50)),
                                "union_background": int(union[0]),
                                "union_foreground": int(union[1]),
                                "first_loss": None,
                                "last_loss": None,
                                "steps": 0,
                                "learning_rate": None,
                                "seconds": 0.1,
                            }
                        )
    return lines


def frame(*args, **kwargs):
    return pd.DataFrame(rows(*args, **kwargs))


def by_hand(lines, **which):
    chosen = [line for line in lines if all(line[key] == value for key, value in which.items())]
    ious = []
    for class_id in (0, 1):
        mine = [line for line in chosen if line["class_id"] == class_id]
        ious.append(
            sum(line["intersection_foreground"] for line in mine)
            / sum(line["union_foreground"] for line in mine)
        )
    return 100 * sum(ious) / 2


def test_every_number_follows_from_the_rows():
    lines = rows()
    table = tables.main_table(pd.DataFrame(lines), SETTINGS).set_index(["variant", "domain", "shot"])
    for variant in SETTINGS["variants"]:
        for shot in (1, 5):
            values = [by_hand(lines, variant=variant, domain=d, shot=shot) for d in SETTINGS["domains"]]
            for domain, value in zip(SETTINGS["domains"], values):
                assert table.at[(variant, domain, shot), "miou"] == pytest.approx(value)
            assert table.at[(variant, "average", shot), "miou"] == pytest.approx(sum(values) / 2)
            assert table.at[(variant, "average", shot), "episodes"] == 12


def test_seeds_are_averaged():
    lines = rows(seeds=(0, 1))
    table = tables.main_table(pd.DataFrame(lines), SETTINGS).set_index(["variant", "domain", "shot"])
    values = [by_hand(lines, variant="apm_s", domain="cells", shot=5, seed=s) for s in (0, 1)]
    assert table.at[("apm_s", "cells", 5), "miou"] == pytest.approx(sum(values) / 2)
    assert table.at[("apm_s", "cells", 5), "seeds"] == 2


def test_an_episode_that_is_there_twice_is_refused():
    with pytest.raises(CdfssError, match="is there twice"):
        tables.summarise(pd.concat([frame(), frame()]))


def test_missing_combinations_are_named():
    table = frame()
    table = table[(table["variant"] != "apm_s") | (table["domain"] != "cells")]
    with pytest.raises(CdfssError, match="2 combinations have no evaluation rows: apm_s, cells, 1-shot"):
        tables.main_table(table, SETTINGS)


def test_published_values_and_differences_stand_beside_ours(tmp_path):
    settings = SETTINGS | {
        "published": True,
        "title": "",
        "domains": {"fss1000": "FSS-1000", "isic2018": "ISIC"},
    }
    data = frame(domains=("fss1000", "isic2018"))
    table = tables.main_table(data, settings).set_index(["variant", "domain", "shot"])
    cell = table.loc[("apm_s", "isic2018", 5)]
    assert cell["published"] == 44.16
    assert cell["difference"] == pytest.approx(cell["miou"] - 44.16)
    assert table.at[("baseline", "average", 1), "published"] == pytest.approx((77.54 + 32.65) / 2)
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "tex")}
    tables.write_main_table(data, settings, paths)
    text = paths["md"].read_text()
    assert "77.54" in text
    assert "| difference" in text
    assert "Demo" not in text


def test_the_three_files_say_the_same(tmp_path):
    paths = {kind: tmp_path / f"t.{kind}" for kind in ("md", "csv", "tex")}
    tables.write_main_table(frame(), SETTINGS, paths)
    markdown, latex = paths["md"].read_text(), paths["tex"].read_text()
    assert markdown.startswith("# Demo: ")
    assert "Demo: " in latex
    for line in pd.read_csv(paths["csv"]).itertuples():
        assert f"{line.miou:.2f}" in markdown
        assert f"{line.miou:.2f}" in latex
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["Baseline", "APM-S", "episodes"]
    assert lines[-1].split("|")[2].strip() == "6"


def test_rows_and_predictions_survive_their_files(tmp_path):
    lines = rows()[:6]
    results.save(lines, tmp_path / "a.parquet", {"device": "cpu"})
    loaded = results.load([tmp_path / "a.parquet"])
    assert loaded["intersection_foreground"].tolist() == [line["intersection_foreground"] for line in lines]
    assert results.facts(tmp_path / "a.parquet") == {"device": "cpu"}
    mask = np.random.RandomState(0).rand(9, 9) < 0.5
    results.save_predictions({3: mask.astype(np.uint8)}, tmp_path / "p.parquet")
    assert (results.load_predictions([tmp_path / "p.parquet"])[3] == mask).all()
    with pytest.raises(CdfssError, match="no evaluation rows"):
        results.load(tmp_path / "empty")


def test_tables_need_no_torch():
    import subprocess
    import sys

    modules = "cdfss.tables, cdfss.figures, cdfss.preflight, cdfss.evaluation"  # trivial predictors too
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
