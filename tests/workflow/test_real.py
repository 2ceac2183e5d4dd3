"""The whole path on small real data sets, where they are there."""

import os
from pathlib import Path

import pandas as pd
import pytest
import yaml

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
def test_real_pictures_end_in_a_table_that_beats_the_trivial_predictors(project):
    values = real_configuration()
    # A short version of real.yaml, so that the suite stays quick.
    values["image_size"] = 160
    values["source"]["epochs"] = 4
    values["source"]["validation"]["episodes"] = 10
    values["adaptation"]["steps"] = 3
    values["variants"] = {n: values["variants"][n] for n in ("foreground", "copy", "baseline", "apm_s")}
    values["shots"] = [1]
    for domain in values["domains"].values():
        domain["episodes"] = min(domain["episodes"], 15)
    name = project.write("real.yaml", yaml.safe_dump(values, sort_keys=False))
    project.run("--cores", "2", "--configfile", name)
    table = pd.read_csv(project.folder / "results" / "table1.csv")
    miou = table.set_index(["variant", "domain"])["miou"]
    assert miou["baseline", "fss1000"] > miou["foreground", "fss1000"]
    assert miou["baseline", "chestxray"] > miou["foreground", "chestxray"]
    assert table["miou"].between(0, 100).all()
    # Pictures are used where they lie: nothing is downloaded or copied, only tiles are cut.
    assert [p.name for p in (project.folder / "data").iterdir()] == ["deepglobe"]
    assert "Nothing to be done" in project.run("--cores", "2", "--configfile", name)
