import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import square_mask, write_picture

from cdfss import CdfssError, HSNet, checkpoints, training
from cdfss.datasets import index

SETTINGS = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "seed": 0,
    "backbone": "efficientnet_lite0",
    "image_size": 64,
    "validation": {"split": "trn", "episodes": 4},
}

# A training in a process of its own, which saves its state after every batch.
SCRIPT = """
import json, sys, torch
from cdfss import training
torch.set_num_threads(1)
training.SAVE_EVERY = 0
settings, folder = json.loads(sys.argv[1]), sys.argv[2]
index = folder + "/index.parquet"
training.run(settings, index, index, None, folder + "/c.safetensors", folder + "/c.json",
             folder + "/history.parquet", folder + "/state", "cpu", 1)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """An index with two classes in the source's split."""
    root = tmp_path_factory.mktemp("source")
    lists = {0: [], 1: [], 2: [], 3: []}
    for number in range(12):
        value = 1 + number % 2
        mask = square_mask((64, 64), value)
        picture = np.random.RandomState(number).randint(0, 90, (64, 64, 3)).astype(np.uint8)
        picture[mask > 0] += np.array([150, 0, 0] if value == 1 else [0, 150, 0], np.uint8)
        write_picture(root / "JPEGImages" / f"{number:02d}.jpg", mask=picture)
        write_picture(root / "SegmentationClassAug" / f"{number:02d}.png", mask=mask)
        lists[0].append(f"{number:02d}__{value:02d}")
    (root / "splits").mkdir()
    for fold, lines in lists.items():
        (root / "splits" / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")
    settings = {"name": "source", "format": "pascal", "root": str(root), "folder": str(root / "w")}
    settings |= {"splits": None, "on_bad_pair": "stop"}
    index.build(settings, root / "index.parquet", 1, lambda line: None)
    return root


def start(folder, source):
    folder.mkdir(exist_ok=True)
    if not (folder / "index.parquet").exists():
        (folder / "index.parquet").write_bytes((source / "index.parquet").read_bytes())
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(SETTINGS), str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_saved(folder):
    """Batches done according to the state on disk, 0 without one."""
    found = list(folder.glob("state/*/state.pt"))
    if not found:
        return 0
    state = torch.load(found[0], weights_only=True)
    return 3 * state["epoch"] + state["step"]


def kill_after(folder, source, batches):
    process = start(folder, source)
    deadline = time.monotonic() + 120
    while steps_saved(folder) < batches:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "c.safetensors").exists()


def test_a_training_killed_twice_ends_as_an_uninterrupted_one(tmp_path, source):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(whole, source)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    kill_after(broken, source, 2)
    kill_after(broken, source, 5)
    process = start(broken, source)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "resuming source training" in output
    assert (whole / "c.safetensors").read_bytes() == (broken / "c.safetensors").read_bytes()
    first, second = (
        pd.read_parquet(f / "history.parquet").drop(columns="seconds") for f in (whole, broken)
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert first["epoch"].tolist() == [1, 2, 3]
    assert first["train_loss"].iloc[-1] < first["train_loss"].iloc[0]
    assert not list(broken.glob("state/*/state.pt"))
    chosen = checkpoints.build(whole / "c.safetensors", "efficientnet_lite0", None, image_size=64)
    assert not any(p.requires_grad for p in chosen.parameters())


def test_an_epoch_depends_on_seed_and_number_alone():
    rows = pd.DataFrame({"class_id": [0, 0, 0, 1, 1]}, index=[3, 4, 5, 8, 9])
    first = training.draw_epoch(rows, 0, 1)
    assert (first == training.draw_epoch(rows, 0, 1)).all()
    assert not (first == training.draw_epoch(rows, 0, 2)).all()
    assert sorted(first[:, 0]) == [3, 4, 5, 8, 9]
    assert (first[:, 0] != first[:, 1]).all()
    assert (
        rows["class_id"].loc[first[:, 0]].to_numpy() == rows["class_id"].loc[first[:, 1]].to_numpy()
    ).all()


def published_state(backbone="resnet18", prefix=""):
    model = HSNet(backbone, image_size=64)
    state = {}
    for key, value in model.state_dict().items():
        name = key.replace("learner.", "hpn_learner.", 1).replace("backbone.network.", "backbone.", 1)
        state[prefix + name] = value
    state[prefix + "backbone.fc.weight"] = torch.zeros(1000, 512)
    return model, state


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_is_taken_with_its_backbone(tmp_path, prefix):
    model, state = published_state(prefix=prefix)
    torch.save(state, tmp_path / "m.pt")
    checkpoints.take(tmp_path / "m.pt", "resnet18", tmp_path / "c.safetensors", tmp_path / "c.json")
    ours = checkpoints.build(tmp_path / "c.safetensors", "resnet18", None, image_size=64)
    for key, value in model.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    assert json.loads((tmp_path / "c.json").read_text())["sha256"] == checkpoints.sha256(
        tmp_path / "c.safetensors"
    )


class Unsafe:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("hpn_learner.decoder2.2.bias"), "missing, unexpected or of another shape"),
        (lambda state: state.update({"reference_layer1.weight": torch.zeros(1)}), "first reference_layer1"),
        (lambda state: state.update({"hpn_learner.decoder2.2.bias": torch.zeros(3)}), "another shape"),
        (lambda state: state.update(unsafe=Unsafe()), "cannot read"),
    ],
)
def test_other_files_are_refused(tmp_path, capsys, change, message):
    _, state = published_state()
    change(state)
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(CdfssError, match=message):
        checkpoints.load(tmp_path / "m.pt", "resnet18")
    assert "ran" not in capsys.readouterr().out


def test_a_file_of_another_backbone_or_none_is_refused(tmp_path):
    model = HSNet("resnet18", image_size=64)
    state = {k: v for k, v in model.state_dict().items() if k.startswith("learner.")}
    checkpoints.save(tmp_path / "c.safetensors", state, "resnet18", {})
    with pytest.raises(CdfssError, match="was trained with resnet18, configured is resnet34"):
        checkpoints.load(tmp_path / "c.safetensors", "resnet34")
    with pytest.raises(CdfssError, match="is not a file"):
        checkpoints.load(tmp_path / "none.safetensors", "resnet18")
    Path(tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CdfssError, match="cannot read"):
        checkpoints.load(tmp_path / "bad.safetensors", "resnet18")
