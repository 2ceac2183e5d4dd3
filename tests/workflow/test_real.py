"""The whole path on small real data sets, where they are there."""

import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cdfss.evaluation import measurement, results

from .conftest import ROOT

PICTURES = Path(os.environ.get("CDFSS_REAL_DATA", ROOT.parent / "shared" / "data"))
ROOTS = {
    "pascal": "VOCdevkit/VOC2012",
    "fss1000": "FSS-1000",
    "deepglobe": "Deepglobe",
    "isic2018": "ISIC",
    "chestxray": "LungSegmentation",
}


def real_configuration(pictures=PICTURES):
    values = yaml.safe_load((Path(__file__).parent / "real.yaml").read_text())
    for name, place in ROOTS.items():
        values["data"][name]["root"] = str(pictures / place)
    return values


@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"no real pictures in {PICTURES} (CDFSS_REAL_DATA)")
def test_real_pictures_end_in_a_table(project):
    values = real_configuration()
    # Short, so that the suite stays quick: it shows that the path holds, not what a model can do.
    values["image_size"] = 128
    values["source"]["epochs"] = 1
    values["adaptation"]["steps"] = 3
    values["analysis"] = {"episodes": 3}
    kept = ("foreground", "copy", "prototypes", "ridge", "baseline", "apm_s")
    values["variants"] = {name: values["variants"][name] for name in kept}
    for domain in values["domains"].values():
        domain["episodes"] = 15
    name = project.write("real.yaml", yaml.safe_dump(values, sort_keys=False))
    project.run("--cores", "2", "--configfile", name)
    table = pd.read_csv(project.folder / "results" / "table1.csv")
    miou = table.set_index(["variant", "domain"])["miou"]
    # Fifteen episodes have no interval, those of all four domains together do.
    average = table["domain"] == "average"
    assert (table["miou_low"] <= table["miou"])[average].all()
    assert (table["miou"] <= table["miou_high"])[average].all()
    assert table.loc[~average, "miou_low"].isna().all()
    assert set(table.loc[~average, "miou_why"]) == {"15 episodes are fewer than 20"}
    assert len(miou) == 6 * 5
    assert miou.between(0, 100).all()
    # Facts of these pictures, whatever the model: lungs lie alike, the copied mask finds them.
    assert miou["copy", "chestxray"] > 40 > 30 > miou["foreground", "chestxray"] > 20
    # No training at all, and above what needs no picture; on DeepGlobe by little, whose pieces are mostly
    # of one class.
    trivial = miou[["foreground", "copy"]].unstack().max()
    above = miou["ridge"] - trivial
    assert (above > 0).all()
    assert above["average"] > 10
    rows = results.load(project.folder / "results")
    assert rows.groupby(["variant", "domain"]).size().eq(15).all()
    tuned = rows[rows["variant"] == "apm_s"]
    assert (tuned["steps"] == 3).all()
    assert (tuned["last_loss"] <= tuned["first_loss"] + 1e-6).mean() > 0.8
    assert rows[rows["variant"] == "baseline"]["first_loss"].isna().all()
    # The filter that keeps everything is the baseline, on the episodes that both looked at.
    filtered = measurement.load((project.folder / "results" / "real" / "analysis").glob("filtering/*"))
    kept = filtered[(filtered["amplitude"] == "all") & (filtered["phase"] == "all")]
    both = kept.merge(rows[rows["variant"] == "baseline"], on=["domain", "episode"])
    assert len(both) == 4 * 3
    assert (both["intersection_foreground_x"] == both["intersection_foreground_y"]).all()
    # Pictures are used where they lie: nothing is downloaded or copied, only tiles are cut.
    assert [p.name for p in (project.folder / "data").iterdir()] == ["deepglobe"]
    assert "Nothing to be done" in project.run("--cores", "2", "--configfile", name)
