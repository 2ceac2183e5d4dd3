"""Generated data sets at a share of the real numbers, which readers take for real ones."""

import functools
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cdfss import CdfssError, configuration
from cdfss.configuration.jobs import Jobs
from cdfss.data import index, places, synthetic
from cdfss.running.provenance import digest

SPLITS = {"everyday": "trn", "objects": "test", "landcover": "test", "lesions": "test", "lungs": "test"}
# Number of pictures at a scale of next to nothing; sizes of pictures; kB of the largest, least and most.
EXPECTED = {
    "everyday": (120, {(500, 375)}, (40, 200)),
    "objects": (60, {(224, 224)}, (10, 50)),
    "landcover": (2, {(2448, 2448)}, (400, 3000)),
    "lesions": (18, {(1022, 767), (3008, 2000), (4288, 2848)}, (1000, 8000)),
    "lungs": (12, {(3000, 3000), (4892, 4020)}, (4000, 16000)),
}


def run(folder, scale=0.0001):
    """The rehearsal's configuration with its data in `folder`."""
    values = yaml.safe_load(Path("config/rehearsal.yaml").read_text())
    return configuration.parse(values | {"folder": str(folder), "scale": scale})


def generate(run, name, threads=1):
    settings = Jobs(run).raw_settings(name)
    synthetic.generate(settings, places.marker(settings), threads)
    return places.home(settings) / "raw"


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function that gives the raw files of a data set, which two processes have drawn, once."""
    folder = tmp_path_factory.mktemp("drawn")
    return functools.cache(lambda name: (run(folder), generate(run(folder), name, 2)))


@pytest.mark.parametrize("name", EXPECTED)
def test_pictures_are_as_many_and_as_large_as_asked_for_and_readers_take_them(name, drawn, tmp_path):
    number, sizes, (least, most) = EXPECTED[name]
    given, raw = drawn(name)
    masks = ("mask", "segmentation")
    found = [p for p in raw.rglob("*.*") if p.suffix in (".jpg", ".png") and p.parent.name != "masks"]
    found = [p for p in found if not p.stem.endswith(masks) and (p.suffix == ".jpg" or name == "lungs")]
    assert len(found) == number
    assert {Image.open(path).size for path in found} == sizes
    assert least < max(path.stat().st_size for path in found) / 1000 < most
    settings = Jobs(given).index_settings(name, SPLITS[name]) | Jobs(given).place_of(name)
    built = index.build(settings, tmp_path / "index.parquet", 2, lambda line: None)  # names bad files
    classes = built.rows.groupby("class_name").size()
    assert classes.min() >= 5  # enough for five shots
    assert len(classes) == {"everyday": 20, "objects": 2, "landcover": 6, "lesions": 3, "lungs": 1}[name]
    assert built.rows["foreground"].between(0.002, 0.95).all()


@pytest.mark.parametrize("name", ["objects", "landcover"])
def test_threads_change_no_byte(name, drawn, tmp_path):
    assert contents(generate(run(tmp_path), name, 1)) == contents(drawn(name)[1])


def test_a_scale_of_one_asks_for_the_real_numbers(tmp_path):
    asked = {}

    def drawn(draw, tasks):
        asked[draw.__name__] = tasks
        if draw.__name__ == "_draw_everyday":
            return [[(1, "picture")] * (1 + is_pair) for _, _, is_pair in tasks]
        return [("name", "kind")] * len(tasks)

    for kind, (_, _, write) in synthetic.WRITERS.items():
        (tmp_path / kind).mkdir()
        write(tmp_path / kind, 1.0, drawn)
    tasks = asked["_draw_everyday"]
    assert (len(tasks), len(tasks) + sum(is_pair for _, _, is_pair in tasks)) == (10_582, 13_680)
    assert len(asked["_draw_object"]) == 10_000
    for split, number in (("trn", 520), ("val", 240), ("test", 240)):
        assert len((tmp_path / "objects" / "splits" / f"{split}.txt").read_text().split()) == number
    assert len(asked["_draw_tile"]) == 803
    kinds = [kind for _, _, kind in asked["_draw_lesion"]]
    assert [kinds.count(k) for k in ("nevus", "melanoma", "seborrheic_keratosis")] == [1867, 519, 208]
    assert len(asked["_draw_chest"]) == 704


def test_two_scales_and_the_demo_share_nothing(tmp_path):
    scales = (None, 0.001, 0.5, 1.0)
    runs = [run(tmp_path, scale) for scale in scales]
    homes = [places.home(Jobs(given).raw_settings("lungs")) for given in runs]
    assert [home.name for home in homes] == [
        "synthetic-lungs",
        *(f"synthetic-lungs-{s}" for s in scales[1:]),
    ]
    indexes = [Jobs(given).index_settings("lungs", "test") for given in runs]
    assert len({digest(settings) for settings in indexes}) == len(scales)
    # Without a scale nothing says so, or finished runs would begin anew.
    assert "scale" not in {
        **indexes[0],
        **Jobs(runs[0]).raw_settings("lungs"),
        **Jobs(runs[0]).place_of("lungs"),
    }


def test_a_data_set_that_is_not_generated_knows_no_scale():
    values = yaml.safe_load(Path("config/config.yaml").read_text())
    before, after = (configuration.parse(values | {"scale": scale}) for scale in (None, 0.1))
    assert Jobs(before).index_settings("pascal", "trn") == Jobs(after).index_settings("pascal", "trn")
    assert Jobs(before).raw_settings("pascal") == Jobs(after).raw_settings("pascal")


def test_too_small_a_disk_is_said_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "free_bytes", lambda path: 1.5e9)
    with pytest.raises(
        CdfssError, match=r"data\.lungs: about \d+(\.\d)? GB .* 1\.5 GB are free .* lower scale"
    ):
        generate(run(tmp_path, 1), "lungs")
    assert not list(tmp_path.rglob("*.png"))


def test_what_a_killed_job_left_is_no_part_of_the_data(tmp_path):
    given = run(tmp_path)
    left = places.home(Jobs(given).raw_settings("landcover")) / "raw.partial" / "train" / "9_sat.jpg"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert len(list((generate(given, "landcover") / "train").iterdir())) == 4
    assert not left.exists()


def test_entries_are_of_things_that_can_be_seen(drawn):
    _, raw = drawn("everyday")
    lines = [line for path in raw.glob("splits/*.txt") for line in path.read_text().split()]
    assert len(lines) == round(120 * 13_680 / 10_582) == len(set(lines))
    for line in lines:
        image, _, value = line.partition("__")
        labels = np.asarray(Image.open(raw / "SegmentationClassAug" / f"{image}.png"))
        assert (labels == int(value)).mean() > 0.005
        assert (labels == 255).any()
