"""PATNet, FPTrans, rival modules and one's own beside HSNet: trained or given, tuned, in their tables."""

import pandas as pd
import pytest
import yaml

from cdfss.evaluation import results

from .test_plan import SMALL, own_data

GAINS = """
from cdfss.methods.modules.contract import Module


class Gains(Module):
    learns = True

    def parameters(self, channels, height, width):
        import torch

        return {"gain": torch.ones(1, channels, 1, 1)}

    def change(self, parameters, maps):
        return maps * parameters["gain"]
"""
VARIANTS = {
    "copy": {"method": "copy"},
    "baseline": {},
    "apm_s": {"modules": ["apm_s"]},
    "gains": {"title": "Gains", "modules": ["gains.py:Gains"]},
    "dff": {"title": "DFF", "modules": ["dff"], "main": False},
    "mmc_oracle": {"title": "MMC", "modules": ["mmc_oracle"], "main": False},
    "patnet": {"title": "PATNet", "method": "patnet"},
    "fptrans": {"title": "FPTrans", "method": "fptrans", "main": False},
    "fptrans_apm_s": {"title": "With APM-S", "method": "fptrans", "modules": ["apm_s"], "main": False},
}
TRANSFORMER = "vit_small_patch16_384"


@pytest.fixture
def hosts(project):
    """A run of all hosts; FPTrans is given, with random weights: to train it takes minutes."""
    import torch

    from cdfss.backbones.facts import facts_of
    from cdfss.methods.fptrans import checkpoints
    from cdfss.methods.fptrans.model import FPTrans

    own_data(project)
    project.write("gains.py", GAINS)
    torch.manual_seed(0)
    given = project.folder / "fptrans.safetensors"
    checkpoints.save(given, FPTrans.on(TRANSFORMER, None, 64).state_dict(), TRANSFORMER, {})
    weights = project.folder / "data" / "backbones" / facts_of(TRANSFORMER).weights
    weights.parent.mkdir(parents=True)
    weights.touch()  # which is not read, since the checkpoint holds the frozen copy
    values = yaml.safe_load(SMALL) | {"variants": VARIANTS, "analysis": {"episodes": 1}}
    fptrans = {"backbone": TRANSFORMER, "checkpoint": given.name}
    values["source"] |= {"epochs": 1, "batch_size": 20, "fptrans": fptrans}
    return project.write("hosts.yaml", yaml.safe_dump(values, sort_keys=False))


def test_every_host_and_module_ends_in_its_table(hosts, project):
    project.run("--cores", "2", "--configfile", hosts)
    results_ = project.folder / "results"
    assert {path.name for path in (results_ / "small" / "source").iterdir()} >= {
        "0",
        "patnet-0",
        "fptrans-given",
    }
    rows = results.load(results_).set_index("variant")
    assert rows.groupby("variant").size().eq(4).all()
    assert set(rows.index) == set(VARIANTS)
    assert rows.loc["gains", "parameters_tuned"].eq(192).all()
    assert rows.loc["dff", "parameters_tuned"].eq(98).all()
    assert rows.loc["mmc_oracle", "parameters_added"].eq(0).all()
    for tuned in ("apm_s", "gains", "dff", "fptrans_apm_s"):
        assert rows.loc[tuned, "first_loss"].notna().all()
    shown = {
        number: set(pd.read_csv(results_ / f"table{number}.csv")["variant"]) for number in (1, 7, 8, 9)
    }
    assert shown == {
        1: {"copy", "baseline", "apm_s", "gains", "patnet"},
        7: {"fptrans", "fptrans_apm_s"},
        8: {"baseline", "dff", "apm_s"},
        9: {"baseline", "mmc_oracle", "apm_s"},
    }
    assert "MMC (sees the query's mask)" in (results_ / "table9.md").read_text()
    page = (results_ / "index.html").read_text()
    assert all(f'id="table{number}"' in page for number in range(1, 10))
    assert project.jobs("--configfile", hosts) == {}
    # A module of one's own is seen when it changes, like a method.
    file = project.folder / "gains.py"
    file.write_text(GAINS.replace("torch.ones", "2 * torch.ones"))
    jobs = project.jobs("--configfile", hosts)
    assert (jobs["evaluate"], jobs["features"], "source" in jobs) == (1, 1, False)
    # A mistake in it ends in words, with its line, and nothing else is lost.
    file.write_text(GAINS.replace("return maps *", "return map *"))
    output = project.run("--cores", "2", "--configfile", hosts, check=False)
    assert "module 'gains.py:Gains' failed: TypeError: unsupported operand type(s) for *" in output
    assert "gains.py, line 14" in output
