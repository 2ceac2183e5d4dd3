import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from conftest import square_mask, write_picture

from cdfss import CdfssError, HSNet
from cdfss.data import index
from cdfss.data.episodes import sample
from cdfss.evaluation import results
from cdfss.methods import source as source_model
from cdfss.methods import training
from cdfss.methods.hsnet import checkpoints

SETTINGS = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "seed": 0,
    "backbone": "efficientnet_lite0",
    "image_size": 64,
    "precision": "float32",
    "validation": {"split": "trn", "episodes": 4},
}

HOSTS = {
    "hsnet": SETTINGS,
    "fptrans": SETTINGS | {"host": "fptrans", "backbone": "test_vit", "learning_rate": 1e-2},
}

# A training in a process of its own, which saves its state after every batch, three an epoch, and
# kills itself within the batch after `last`.
SCRIPT = """
import dataclasses, json, os, signal, sys, threading, torch
from cdfss.backbones import facts
from cdfss.methods import training
# A small network of timm beside the known ones.
facts.BACKBONES["test_vit"] = dataclasses.replace(facts.facts_of("vit_small_patch16_384"))
torch.set_num_threads(1)
training.SAVE_EVERY = 0
settings, folder, last = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
save = training._State.save
def save_and_die(state):
    save(state)
    if 3 * state.epoch + state.step == last:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGKILL)).start()
training._State.save = save_and_die
index = folder + "/index.parquet"
training.run(settings, index, index, folder + "/weights.pth", folder + "/c.safetensors", folder + "/c.json",
             folder + "/history.parquet", folder + "/state",
             {"device": "cpu", "compile": False, "cache_gb": 1.0}, 1)
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


def train(folder, source, settings, last=-1):
    """Output and exit status of a training that is killed after `last` batches."""
    folder.mkdir(exist_ok=True)
    if not (folder / "index.parquet").exists():
        (folder / "index.parquet").write_bytes((source / "index.parquet").read_bytes())
        torch.manual_seed(0)
        network = timm.create_model("test_vit", num_classes=0, dynamic_img_size=True)
        torch.save(network.state_dict(), folder / "weights.pth")
    arguments = [sys.executable, "-c", SCRIPT, json.dumps(settings), str(folder), str(last)]
    process = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    return process.stdout, process.returncode


@pytest.mark.parametrize("host", HOSTS)
def test_a_training_killed_twice_ends_as_an_uninterrupted_one(host, tmp_path, source):
    whole, broken, settings = tmp_path / "whole", tmp_path / "broken", HOSTS[host]
    output, status = train(whole, source, settings)
    assert status == 0, output
    for last in (2, 5):
        output, status = train(broken, source, settings, last)
        assert status == -signal.SIGKILL, output
        assert not (broken / "c.safetensors").exists()
    output, status = train(broken, source, settings)
    assert status == 0, output
    assert "resuming source training" in output
    assert (whole / "c.safetensors").read_bytes() == (broken / "c.safetensors").read_bytes()
    first, second = (pd.read_parquet(f / "history.parquet") for f in (whole, broken))
    assert (whole / "history.parquet").read_bytes() == (broken / "history.parquet").read_bytes()
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    assert first["epoch"].tolist() == [1, 2, 3]
    assert first["train_loss"].iloc[-1] < first["train_loss"].iloc[0]
    assert not list(broken.glob("state/*/state.pt"))
    facts = results.facts(whole / "history.parquet")
    assert facts["training"] == source_model.training(whole / "c.safetensors") != "given"
    assert facts["settings"] == settings


def test_a_trained_model_is_frozen_and_holds_what_was_trained(tmp_path, source):
    loaded = index.load(source / "index.parquet")
    listed = sample(loaded, split="trn", shot=1, seed=0, number=4)
    files = [tmp_path / file for file in ("c.safetensors", "history.parquet", "state")]
    cpu = torch.device("cpu")
    training.train(SETTINGS | {"epochs": 1}, loaded, loaded, listed, "imagenet", *files, cpu, cache=1e9)
    chosen = checkpoints.build(files[0], "efficientnet_lite0", None, image_size=64)
    assert not any(p.requires_grad for p in chosen.parameters())


def damage(how, state):
    content = state.read_bytes()
    state.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "zeros": bytes(5000)}[how])


@pytest.mark.parametrize("how", ["empty", "truncated", "zeros"])
def test_a_broken_state_is_set_aside_and_training_goes_on_from_the_one_before(how, tmp_path, source):
    def broken(*paths):
        model = HSNet("efficientnet_lite0", image_size=64)
        optimiser = torch.optim.Adam(model.learner.parameters(), 1e-3)
        for path in paths:
            damage(how, path)
        return training._State(tmp_path / "state.pt", model, optimiser)

    state = broken()
    for step in (1, 2):
        state.step = step
        state.save()
    assert broken().step == 2
    assert broken(tmp_path / "state.pt").step == 1  # one of the two is lost, not the training
    assert (tmp_path / "state.broken").exists()
    assert broken(tmp_path / "before.pt").step == 0


# A tensor, since old versions of safetensors read no file without one.
ONE = {"bias": torch.zeros(1)}


def test_a_training_is_told_by_everything_but_its_seed(tmp_path):
    def told(settings=None, **facts):
        made_from = {"settings": SETTINGS | (settings or {}), "source": "s1", "validation": "v1"}
        checkpoints.save(tmp_path / "c.safetensors", ONE, "resnet50", made_from | facts)
        return source_model.training(tmp_path / "c.safetensors")

    assert told() == told({"seed": 5}) == told(epoch=3)
    others = [told({"epochs": 9}), told({"image_size": 32}), told(source="s2"), told(validation="v2")]
    assert len({told(), *others}) == 5
    checkpoints.save(tmp_path / "c.safetensors", ONE, "resnet50", {"taken_from_sha256": "1"})
    assert source_model.training(tmp_path / "c.safetensors") == "given"
    (tmp_path / "c.safetensors").write_bytes(b"x")
    with pytest.raises(CdfssError, match="damaged"):
        source_model.training(tmp_path / "c.safetensors")


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


def test_kept_features_give_the_losses_of_a_backbone_pass_in_every_batch(tmp_path, source, capsys):
    loaded = index.load(source / "index.parquet")
    listed = sample(loaded, split="trn", shot=1, seed=0, number=4)
    histories = []
    for name, cache in (("kept", 1e9), ("passed", 0.0)):
        files = [tmp_path / name / file for file in ("c.safetensors", "history.parquet", "state")]
        files[0].parent.mkdir()
        arguments = (loaded, loaded, listed, "imagenet", *files, torch.device("cpu"))
        histories.append(training.train(SETTINGS, *arguments, cache=cache))
        assert ("are kept" in capsys.readouterr().out) == (cache > 0)
    kept, passed = histories
    assert kept["train_loss"].tolist() == pytest.approx(passed["train_loss"].tolist(), rel=1e-4)


def test_features_are_computed_once_and_kept_within_the_budget(source):
    loaded = index.load(source / "index.parquet")
    model = HSNet("efficientnet_lite0", image_size=64)
    pairs = training.draw_epoch(loaded.of_split("trn"), 0, 0)
    batches = training.Batches(model, loaded, loaded.rows.index, 64, 1e9)
    assert training.Batches(model, loaded, loaded.rows.index, 64, batches.needed - 1).kept is None
    assert training.Batches(model, loaded, loaded.rows.index, 64, batches.needed).kept is not None
    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(2):
        list(batches(pairs, 4))
    assert len(passes) == len(loaded.rows)
    held = sum(
        m.numel() * m.element_size() for p, *_ in batches.kept.values() for maps in p for m in maps
    ) + sum(mask.numel() + void.numel() for _, mask, void in batches.kept.values())
    assert held == batches.needed
