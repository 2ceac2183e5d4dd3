"""What is written of segmented pictures, and runs over many of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from cdfss import CdfssError
from cdfss.segmentation import outputs, polygons
from cdfss.segmentation.run import RECORD, segment_all
from cdfss.segmentation.supports import queries, read_query

VALUES = {"road": 1, "tree": 2, "car": 7}
COLOURS = {"road": (213, 94, 0), "tree": (86, 180, 233), "car": (240, 228, 66)}


def noise(share, shape=(23, 31), seed=0):
    return np.random.RandomState(seed).rand(*shape) < share


def labels(shape=(23, 31)):
    """Areas of classes with holes, that touch one another and the edges."""
    found = np.where(noise(0.5, shape), np.uint8(1), np.uint8(0))
    found[4:15, 8:24] = 2
    found[7:10, 12:18] = 0
    found[8, 14] = 7
    return found


# Polygons


def rasterised(region, shape):
    """Pixels whose centres are in the outer ring and in no hole."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    centres = np.stack([columns.ravel(), rows.ravel()], 1)
    inside = Outline(np.concatenate([region.outer, region.outer[:1]])).contains_points(centres)
    for hole in region.holes:
        inside &= ~Outline(np.concatenate([hole, hole[:1]])).contains_points(centres)
    return inside.reshape(shape)


def area(ring):
    x, y = ring.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
def test_polygons_are_the_mask_again_with_their_holes(share):
    mask = noise(share)
    whole = np.zeros(mask.shape, int)
    for region in polygons.regions(mask):
        inside = rasterised(region, mask.shape)
        assert inside.sum() == region.pixels
        x, y, width, height = region.box
        assert (inside[y : y + height, x : x + width] == region.inside).all()
        assert area(region.outer) > 0 > max([area(hole) for hole in region.holes], default=-1)
        for ring in (region.outer, *region.holes):  # simple: no corner is passed twice
            assert len({tuple(corner) for corner in ring.tolist()}) == len(ring) >= 4
        whole += inside
    assert (whole == mask).all()


def test_polygons_follow_the_edges_of_pixels():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 1:8] = True
    mask[4, 4] = False
    (region,) = polygons.regions(mask)
    assert {tuple(corner) for corner in region.outer.tolist()} == {(1, 2), (8, 2), (8, 7), (1, 7)}
    assert area(region.outer) + area(region.holes[0]) == region.pixels == 34
    assert polygons.regions(np.zeros((3, 3), bool)) == []


def test_geojson_has_a_closed_polygon_for_each_region():
    found = labels()
    content = outputs.geojson("a ü", found.shape, outputs.regions_of(found, VALUES), VALUES)
    content = json.loads(json.dumps(content))
    assert content["type"] == "FeatureCollection"
    assert content["picture"] == {
        "name": "a ü",
        "width": 31,
        "height": 23,
        "axes": "pixels from the upper left corner, x right, y down",
    }
    pixels = dict.fromkeys(VALUES, 0)
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["axes"] == "pixels, y down"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
        pixels[feature["properties"]["class"]] += feature["properties"]["area"]
    assert pixels == {name: int((found == value).sum()) for name, value in VALUES.items()}


def from_rle(counts, shape):
    """A mask of COCO's compressed RLE, by its published rule, written from the reader's side."""
    numbers, place = [], 0
    while place < len(counts):
        value, shift, more = 0, 0, True
        while more:
            sign = ord(counts[place]) - 48
            value |= (sign & 31) << shift
            more = bool(sign & 32)
            place, shift = place + 1, shift + 5
            if not more and sign & 16:
                value |= -1 << shift
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
    flat = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
    return flat.reshape(shape[::-1]).T


# What pycocotools 2.0.11 encodes of the ring below.
ENCODED = (
    "oj0?Z16K4L4M2N2M4M2N2O0O2N2N2O0O2O0O2O000O2O0000oN24NJ64JK84HK:4FK<4DL<4DK>4BL>4BL>4BL>4"
    "BL>4BL>4CK=4DL<4DL<4EL94HL84IL54LM24OLO43MI49f0101N2N3L3N2N3L4L5J`Z1"
)


def test_cocos_run_lengths_are_those_of_its_own_tools():
    y, x = np.mgrid[:60, :90]
    ring = ((x - 40) ** 2 + (y - 30) ** 2 < 27**2) & ~((x - 46) ** 2 + (y - 28) ** 2 < 11**2)
    (region,) = polygons.regions(ring)
    assert outputs.rle(region.inside, region.box[:2], ring.shape) == {"size": [60, 90], "counts": ENCODED}
    assert outputs.rle(np.ones((2, 3), bool), (0, 0), (2, 3)) == {"size": [2, 3], "counts": "06"}


def test_coco_annotations_are_the_mask_again():
    found = labels()
    whole = np.zeros_like(found)
    kinds = set()
    for annotation in outputs.annotations(found.shape, outputs.regions_of(found, VALUES), VALUES):
        segmentation = annotation["segmentation"]
        kinds.add(type(segmentation))
        if isinstance(segmentation, dict):
            assert segmentation["size"] == [23, 31]
            mask = from_rle(segmentation["counts"], found.shape)
        else:
            outer = np.reshape(segmentation[0], (-1, 2))
            mask = rasterised(polygons.Region(0, (0, 0, 0, 0), np.zeros(0), outer), found.shape)
        assert mask.sum() == annotation["area"]
        rows, columns = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        whole[mask] = annotation["category_id"]
    assert (whole == found).all()
    assert kinds == {dict, list}


# Masks, probabilities, overlays


def test_a_mask_of_one_class_is_black_and_white_and_one_of_several_a_palette(tmp_path):
    found = labels()
    outputs.write_mask(tmp_path / "one.png", (found == 2) * np.uint8(3), {"tree": 3}, {"tree": (1, 2, 3)})
    with Image.open(tmp_path / "one.png") as image:
        assert image.mode == "L"
        assert (np.array(image) == np.where(found == 2, 255, 0)).all()
    outputs.write_mask(tmp_path / "several.png", found, VALUES, COLOURS)
    with Image.open(tmp_path / "several.png") as image:
        assert image.mode == "P"
        assert (np.array(image) == found).all()
        shown = np.array(image.convert("RGB"))
    for name, value in VALUES.items():
        assert (shown[found == value] == COLOURS[name]).all()
    assert (shown[found == 0] == 0).all()


def test_probabilities_are_written_to_their_precision(tmp_path):
    probability = np.random.RandomState(0).rand(23, 31).astype(np.float32)
    probability[0, :2] = 0, 1
    outputs.write_probability(tmp_path / "a.png", probability)
    outputs.write_probability(tmp_path / "a.tif", probability)
    with Image.open(tmp_path / "a.png") as image:
        values = np.array(image)
    assert values[0, :2].tolist() == [0, 65535]
    assert np.abs(values / 65535 - probability).max() < 1e-5
    with Image.open(tmp_path / "a.tif") as image:
        assert (np.array(image) == probability).all()


def test_an_overlay_outlines_and_lightly_fills_each_class():
    grey = np.full((300, 400, 3), 128, np.uint8)
    found = np.zeros((300, 400), np.uint8)
    found[50:250, 40:180], found[50:250, 220:360] = 1, 2
    shown = outputs.overlay(grey, found, VALUES, COLOURS)
    assert shown.shape == (480, 640, 3)
    for name, column in (("road", 110), ("tree", 290)):
        row, middle = round(50 * 1.6), round(column * 1.6)
        assert (shown[row + 1, middle] == COLOURS[name]).all()
        filled = shown[240, middle].astype(int)
        assert 10 < np.abs(filled - 128).max() < 60  # the picture is still seen
    assert (shown[5, 5] == 128).all()


def test_an_overlay_of_a_large_picture_is_smaller_and_keeps_what_is_thin():
    found = np.zeros((1000, 4000), np.uint8)
    found[500:502] = 1
    shown = outputs.overlay(np.full((1000, 4000, 3), 128, np.uint8), found, VALUES, COLOURS)
    assert shown.shape == (450, 1800, 3)
    assert (shown == COLOURS["road"]).all(2).any(0).all()


# Runs over many pictures


class Bright:
    """In place of a segmenter: what is bright, of each colour a class."""

    def __init__(self, *classes, **how):
        self.classes = classes or ("red",)
        self.values = {name: number for number, name in enumerate(self.classes, 1)}
        self.colours = {name: (250, 10 * number, 0) for number, name in enumerate(self.classes)}
        self.how = {"size": 16, "tile": 60, "method": "bright", "value_range": None, **how}
        self.seen = []

    def read(self, picture):
        return read_query(picture, self.how["value_range"])

    def probabilities(self, picture):
        self.seen.append(picture.shape)
        return np.moveaxis(picture, 2, 0)[: len(self.classes)].astype(np.float32) / 255

    def labels(self, probabilities):
        best = probabilities.argmax(0).astype(np.uint8) + 1
        return np.where(probabilities.max(0) >= 0.5, best, 0).astype(np.uint8)

    def predict(self, picture):
        return self.labels(self.probabilities(picture))


@pytest.fixture
def folder(tmp_path):
    """Three pictures of different sizes; one lies in a folder of its own, and is called as another."""
    for number, name in enumerate(("a.png", "b ü.jpg", "more/a.png")):
        path = tmp_path / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.RandomState(number).randint(0, 256, (20 + number, 30, 3)).astype(np.uint8)
        Image.fromarray(values).save(path)
    return tmp_path / "new"


def run(folder, segmenter=None, out=None, **more):
    out = folder.parent / "out" if out is None else out
    return segment_all(segmenter or Bright(), queries(folder, out), out, **more)


EVERYTHING = ("overlays", "probabilities", "probabilities-float", "polygons", "areas", "coco")


def test_all_outputs_of_all_pictures_are_written(folder):
    out, segmenter = folder.parent / "out", Bright("red", "gr/een")
    summary = run(folder, segmenter, write=EVERYTHING)
    assert sorted(summary.made) == ["b ü", "more_a", "new_a"]
    assert not summary.kept
    assert not summary.failed
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    expected = {RECORD, "areas.csv", "coco.json"}
    for name in summary.made:
        expected |= {f"{name}.png", f"overlays/{name}.jpg", f"polygons/{name}.geojson"}
        for of_class in ("red", "gr_een"):
            expected |= {f"probabilities/{of_class}/{name}.png", f"probabilities/{of_class}/{name}.tif"}
    assert files == expected
    with Image.open(folder / "a.png") as image:
        picture = np.array(image)
    with Image.open(out / "new_a.png") as image:
        assert (np.array(image) == segmenter.predict(picture)).all()
    with (out / "areas.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["class"]) for row in rows[:3]] == [
        ("b ü", "red"),
        ("b ü", "gr/een"),
        ("more_a", "red"),
    ]
    red = next(row for row in rows if (row["name"], row["class"]) == ("new_a", "red"))
    assert int(red["pixels"]) == (segmenter.predict(picture) == 1).sum()
    assert float(red["share"]) == int(red["pixels"]) / 600
    coco = json.loads((out / "coco.json").read_text("utf-8"))
    assert [image["id"] for image in coco["images"]] == [1, 2, 3]
    assert coco["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "gr/een"}]
    assert [a["id"] for a in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    areas = sum(a["area"] for a in coco["annotations"] if a["image_id"] == 3)
    assert areas == sum(int(row["pixels"]) for row in rows if row["name"] == "new_a")


def test_what_is_made_and_unchanged_is_kept(folder):
    run(folder)
    out = folder.parent / "out"
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    segmenter = Bright()
    summary = run(folder, segmenter)
    assert (len(summary.made), len(summary.kept), segmenter.seen) == (0, 3, [])
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.png")} == before
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "a.png")
    assert run(folder).made == ["new_a"]  # its content is another
    (out / "overlays" / "b ü.jpg").unlink()
    assert run(folder).made == ["b ü"]
    assert len(run(folder, Bright(method="other")).made) == 3
    assert run(folder, Bright(method="other"), write=("polygons",)).made != []  # not written before
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "z.png")
    assert run(folder, Bright(method="other"), write=("polygons",)).made == ["z"]
    assert len(run(folder, Bright(method="other", value_range=(0, 255)), write=("polygons",)).made) == 4
    assert len((out / "areas.csv").read_text("utf-8").splitlines()) == 5


def test_nothing_that_another_model_made_stays_beside_new_masks(folder):
    out = folder.parent / "out"
    run(folder, write=EVERYTHING)
    (out / "report.html").write_text("of the first model")
    (out / "mine.txt").write_text("a person's own")
    run(folder, Bright("red", "green"), write=())
    masks = {"b ü.png", "more_a.png", "new_a.png"}
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {RECORD, "areas.csv", "mine.txt", *masks}
    assert "green" in (out / "areas.csv").read_text("utf-8")


def test_what_the_same_model_made_before_stays_and_is_still_known(folder):
    out = folder.parent / "out"
    run(folder, write=("overlays", "coco"))
    assert len(run(folder, write=("polygons",)).made) == 3
    assert (out / "overlays" / "b ü.jpg").is_file()
    assert len(json.loads((out / "coco.json").read_text("utf-8"))["images"]) == 3
    assert run(folder, write=("overlays", "polygons", "coco")).made == []


@pytest.mark.parametrize("content", [b'{"name": "new_a"}\n', b"\xff\xfe\n", b"[]\n3\n", b"\x00" * 50])
def test_a_record_that_is_damaged_is_made_anew(content, folder):
    run(folder)
    (folder.parent / "out" / RECORD).write_bytes(content)
    assert len(run(folder).made) == 3
    assert run(folder).made == []


def test_a_foreign_record_removes_nothing_outside_its_folder(folder):
    out = folder.parent / "out"
    run(folder)
    lines = [json.loads(line) for line in (out / RECORD).read_text("utf-8").splitlines()]
    foreign = [line | {"files": ["../new/a.png", str(folder / "a.png")], "model": "x"} for line in lines]
    (out / RECORD).write_text("".join(json.dumps(line) + "\n" for line in foreign), "utf-8")
    assert len(run(folder).made) == 3
    assert (folder / "a.png").is_file()


def test_a_run_that_was_killed_goes_on(folder):
    class Killed(Bright):
        def predict(self, picture):
            if len(self.seen) == 4:  # two of which are for the time that one takes
                raise KeyboardInterrupt
            return super().predict(picture)

    with pytest.raises(KeyboardInterrupt):
        run(folder, Killed())
    record = folder.parent / "out" / RECORD
    assert len(record.read_text("utf-8").splitlines()) == 2
    record.write_text(
        record.read_text("utf-8") + '{"name": "new_a", "sha', "utf-8"
    )  # cut while it was written
    summary = run(folder)
    assert (len(summary.made), len(summary.kept)) == (1, 2)
    assert run(folder).made == []
    assert not list((folder.parent / "out").rglob("*.partial"))


def test_a_bad_picture_is_told_and_does_not_end_the_rest(folder):
    (folder / "bad.png").write_bytes(b"no picture")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    said = []
    summary = run(folder, say=said.append)
    assert len(summary.made) == 3
    assert set(summary.failed) == {"bad", "cut"}
    for name, words in (("bad", "is not a picture that can be read"), ("cut", "truncated")):
        assert summary.failed[name].startswith(str(folder / f"{name}.png: "))
        assert words in summary.failed[name]
        assert summary.failed[name] in said
    assert run(folder).kept == summary.made


def test_no_mask_stays_of_a_picture_that_has_become_unreadable(folder):
    run(folder)
    (folder / "a.png").write_bytes(b"no picture")
    assert list(run(folder).failed) == ["new_a"]
    out = folder.parent / "out"
    assert not (out / "new_a.png").exists()
    assert "new_a" not in (out / "areas.csv").read_text("utf-8")


def test_a_picture_that_takes_too_much_memory_does_not_end_the_rest(folder):
    class Greedy(Bright):
        def predict(self, picture):
            if picture.shape[0] == 21:
                raise MemoryError
            return super().predict(picture)

    summary = run(folder, Greedy())
    said = "needs more memory than there is; cut it into smaller pictures"
    assert summary.failed == {"b ü": f"{folder / 'b ü.jpg'}: {said}"}
    assert len(summary.made) == 2


def test_pictures_that_go_or_come_during_a_run_do_not_end_it(folder):
    waiting = queries(folder)
    (folder / "a.png").unlink()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "z.png")
    summary = segment_all(Bright(), waiting, folder.parent / "out")
    assert len(summary.made) == 2
    assert "No such file" in summary.failed["new_a"]
    assert run(folder).made == ["z", "a"]  # it has the name for itself now
    rows = (folder.parent / "out" / "areas.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["a", "b ü", "z"]


def test_out_may_lie_among_the_queries(folder):
    out = folder / "masks"
    assert len(run(folder, out=out).made) == 3
    assert len(run(folder, out=out).kept) == 3


def test_time_and_memory_are_said_before_and_time_left_while_it_runs(folder):
    said, left = [], []
    wide = np.zeros((50, 200, 3), np.uint8)
    Image.fromarray(wide).save(folder / "wide.png")
    run(folder, say=said.append, progress=lambda *state: left.append(state))
    assert said[0].startswith("4 pictures to segment in 8 tiles: about 0:00:0")
    assert said[0].endswith("GB of memory besides the model's")
    assert [state[:2] for state in left] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert left[0][2] > left[-1][2] == 0
    assert all(state[2] > 0 for state in left[:-1])
    run(folder, say=said.append)
    assert said[1:] == ["4 pictures were segmented before and are kept"]


def test_memory_for_a_picture_that_there_is_not_is_told(folder, monkeypatch):
    said = []
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000}))
    run(folder, say=said.append)
    assert "alone needs about" in said[1]
    assert "cut it into smaller pictures" in said[1]


def occupied(out):
    out.mkdir()
    (out / "labelled.png").write_bytes(b"drawn by hand")


@pytest.mark.parametrize(
    ("prepare", "given", "words"),
    [
        (None, {"write": ("overlay",)}, r"write holds 'overlay'; expected of overlays, "),
        (None, {"queries": []}, r"there are no queries; give at least one"),
        (lambda out: out.write_text(""), {}, r"out: is a file.*name another"),
        (
            occupied,
            {},
            r"out: holds pictures that no earlier run wrote \(labelled\.png\).*name another folder",
        ),
    ],
)
def test_wrong_places_end_in_a_message_and_nothing_is_written(prepare, given, words, folder):
    out = folder.parent / "out"
    if prepare:
        prepare(out)
    before = {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()}
    with pytest.raises(CdfssError, match=words):
        segment_all(Bright(), out=out, **{"queries": queries(folder), **given})
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before


def test_masks_never_overwrite_what_is_segmented(folder):
    with pytest.raises(
        CdfssError, match=r"new: holds pictures that no earlier run wrote \(a\.png, b ü\.jpg\)"
    ):
        segment_all(Bright(), queries(folder / "a.png"), folder)
    out = folder.parent / "out"
    run(folder)
    with pytest.raises(CdfssError, match=r"b ü\.png: is to be segmented, and its mask would overwrite it"):
        segment_all(Bright(), queries(out / "b ü.png"), out)


def test_two_runs_do_not_write_to_one_folder(folder):
    class Starts(Bright):
        def predict(self, picture):
            with pytest.raises(CdfssError, match=r"out: another run is writing there; wait until it ends"):
                run(folder)
            return super().predict(picture)

    assert len(run(folder, Starts()).made) == 3


def test_a_full_disk_ends_the_run_in_words(folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        outputs, "write_mask", lambda path, *_: outputs._save(Image.new("L", (9, 9)), path, "PNG")
    )
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(CdfssError, match=r"cannot be written: the disk.*is full"):
        run(folder, write=())
    assert not list(Path(folder.parent / "out").glob("*.png"))
