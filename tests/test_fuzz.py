"""Whatever a file holds, a reader gives what it says or a message: no other exception, no hang.

Files of ours and of users, whole ones with bits flipped, cut short, or random from the first byte.
Archives and pictures have tests of their own (test_download.py, test_own_pictures.py).
"""

import json
import time
import warnings

import numpy as np
import pytest
import torch
from conftest import square_mask, write_picture
from made_rows import feature_rows, row, table_settings

from cdfss import CdfssError, HSNet, configuration
from cdfss.backbones.network import build
from cdfss.backbones.weights import load_imagenet
from cdfss.data import episodes, index, tracking
from cdfss.evaluation import measurement, results
from cdfss.methods import source
from cdfss.methods.hsnet import checkpoints
from cdfss.methods.training import _State
from cdfss.reports import page, tables

TRIES = 60  # of each reader
SECONDS = 60.0  # for all tries of a reader, many times what they take


def spoiled(content: bytes, generator, number: int) -> bytes:
    """Random bytes, a part, or a few flipped bits of a file's content, turn by turn."""
    kind = number % 4
    if kind == 0:
        return generator.bytes(int(generator.randint(0, 2000)))
    if kind == 1:
        return content[: int(generator.randint(0, len(content)))]
    changed = bytearray(content)
    for _ in range(int(generator.choice([1, 3, 30]))):
        # Headers and footers, where lengths and names are, as often as all the rest.
        place = generator.randint(0, len(changed))
        if generator.rand() < 0.6:
            place = int(generator.randint(-min(200, len(changed)), min(200, len(changed))))
        changed[place] = generator.randint(0, 256)
    return bytes(changed)


def rows_file(folder):
    generator = np.random.RandomState(0)
    path = folder / "rows.parquet"
    facts = {"settings": {"domain": "lungs", "variant": "baseline", "shot": 1, "seed": 0}}
    results.save([row(generator, "lungs", "baseline", 1, 0, e) for e in range(4)], path, facts)
    return path


def features_file(folder):
    settings = table_settings({"baseline": {}, "apm_s": {"modules": ["apm_s"]}}, ("lungs",))
    path = folder / "features.parquet"
    results.save(feature_rows(settings, ("baseline", "apm_s"), 3), path, {}, measurement.FEATURES)
    return path


def predictions_file(folder):
    path = folder / "predictions.parquet"
    masks = {e: np.eye(32, dtype=np.uint8) for e in range(3)}
    results.save_predictions(masks, path, {"settings": {"variant": "baseline"}})
    return path


def checkpoint_file(folder, published=False):
    torch.manual_seed(0)
    model = HSNet("resnet18")
    path = folder / ("m.pt" if published else "c.safetensors")
    if published:
        checkpoints.save_published(model, path)
    else:
        learner = {k: v for k, v in model.state_dict().items() if k.startswith("learner.")}
        checkpoints.save(path, learner, "resnet18", {})
    return path


def weights_file(folder):
    path = folder / "w.pth"
    torch.save(build("resnet18").network.state_dict(), path)
    return path


def configuration_file(folder):
    path = folder / "c.yaml"
    values = (
        "name: x\nimage_size: 64\nshots: [1, 5]\ndata:\n  m: {format: folder, root: m}\ndomains:\n  m: {}\n"
    )
    values += (
        "source: {data: m, validation: {data: m}}\nvariants:\n  a: {modules: [apm_s], learning_rate: 0.1}\n"
    )
    path.write_text(values)
    return path


def table_page(folder):
    settings = table_settings({"baseline": {}}, ("lungs",), shots=[1])
    paths = {kind: folder / f"t.{kind}" for kind in ("md", "csv", "tex", "html", "origin")}
    tables.write(tables.of_files(1, [rows_file(folder)], [], [], [], settings), paths)
    return paths["html"]


def state_file(folder):
    state(folder / "state.pt").save()
    return folder / "state.pt"


def state(path):
    learner = torch.nn.Linear(3, 2)
    return _State(path, learner, torch.optim.Adam(learner.parameters()))


def gallery_file(folder):
    path = folder / "gallery.json"
    path.write_text(
        json.dumps({"domain": "lungs", "shot": 1, "variants": {}, "episodes": [], "first": "x"})
    )
    return path


def read_page(path):
    settings = table_settings({"baseline": {}}, ("lungs",), shots=[1])
    page.write([path], [], [], settings, path.parent / "index.html")


READERS = {
    "rows": (rows_file, results.load),
    "facts": (rows_file, results.facts),
    "features": (features_file, measurement.load),
    "predictions": (predictions_file, lambda path: results.load_predictions([path])),
    "our checkpoint": (checkpoint_file, lambda path: checkpoints.load(path, "resnet18")),
    "identity": (checkpoint_file, source.identity),
    "published checkpoint": (lambda f: checkpoint_file(f, True), lambda p: checkpoints.load(p, "resnet18")),
    "backbone": (weights_file, lambda path: load_imagenet(build("resnet18"), path)),
    "configuration": (configuration_file, configuration.load),
    "page of a table": (table_page, read_page),
    "training state": (state_file, state),
}


def fuzz(original, read):
    content, generator, begin = original.read_bytes(), np.random.RandomState(1), time.monotonic()
    outcomes = {"message": 0, "read": 0}
    around = set(original.parent.parent.iterdir())
    for number in range(TRIES):
        original.write_bytes(spoiled(content, generator, number))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(original)
            outcomes["read"] += 1
        except CdfssError as error:
            outcomes["message"] += bool(str(error).strip())
    assert time.monotonic() - begin < SECONDS
    assert set(original.parent.parent.iterdir()) == around
    assert sum(outcomes.values()) == TRIES
    return outcomes


@pytest.mark.parametrize("name", READERS)
def test_no_file_ends_in_a_traceback(name, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    make, read = READERS[name]
    original = make(folder)
    read(original)
    outcomes = fuzz(original, read)
    if name != "training state":  # which is set aside with a word
        assert outcomes["message"] >= TRIES // 4


@pytest.mark.parametrize("name", ["index", "episodes", "record"])
def test_no_index_and_no_list_end_in_a_traceback(name, settings, folder_data, tmp_path):
    given, folder = settings(folder_data), tmp_path / "inside"
    index.build(given, folder / "index.parquet", 1, lambda line: None)
    episodes.run(
        {"split": "test", "shot": 1, "seed": 0, "number": 4},
        folder / "index.parquet",
        folder / "list.parquet",
    )
    if name == "index":
        fuzz(folder / "index.parquet", index.load)
    elif name == "episodes":
        fuzz(folder / "list.parquet", episodes.load)
    else:
        keys = []
        fuzz(
            tracking.record_path(folder / "index.parquet"),
            lambda path: keys.append(tracking.key(given, folder / "index.parquet")),
        )
        assert len(keys) == TRIES


def listed_data(root, format):
    """A small data set with the table or lists that a format needs, and that file."""
    for number in range(4):
        if format == "isic2018":
            write_picture(root / "ISIC2018_Task1-2_Training_Input" / f"ISIC_000000{number}.jpg")
            masks = root / "ISIC2018_Task1_Training_GroundTruth"
            write_picture(masks / f"ISIC_000000{number}_segmentation.png", mask=square_mask())
        elif format == "pascal":
            write_picture(root / "JPEGImages" / f"{number}.jpg")
            write_picture(root / "SegmentationClassAug" / f"{number}.png", mask=square_mask(value=3))
        else:
            write_picture(root / "cat" / f"{number}.jpg")
            write_picture(root / "cat" / f"{number}.png", mask=square_mask())
    if format == "isic2018":
        lines = [f"ISIC_000000{n},{('nevus', 'melanoma')[n % 2]}" for n in range(4)]
        (root / "class_id.csv").write_text("\n".join(["ID,Class", *lines]) + "\n")
        return root / "class_id.csv"
    (root / "splits").mkdir()
    names = (
        [f"fold{fold}.txt" for fold in range(4)]
        if format == "pascal"
        else ["trn.txt", "val.txt", "test.txt"]
    )
    for name in names:
        (root / "splits" / name).write_text("")
    target = root / "splits" / names[-1]
    target.write_text("".join(f"{n}__03\n" for n in range(4)) if format == "pascal" else "cat\n")
    return target


@pytest.mark.parametrize("format", ["isic2018", "pascal", "fss1000"])
def test_no_list_or_table_of_a_data_set_ends_in_a_traceback(format, settings, tmp_path):
    root = tmp_path / "data"
    target = listed_data(root, format)
    given = settings(root, format) | {"folder": str(tmp_path / "work")}
    (root / "index").mkdir()
    fuzz(target, lambda path: index.build(given, root / "index" / "i.parquet", 1, lambda line: None))
