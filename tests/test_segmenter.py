"""Fitting to a person's pictures, predicting others at their own size, and keeping what was learnt."""

import json
import struct
from collections import Counter

import numpy as np
import pytest
from made_network import discs, iou
from PIL import Image

import cdfss
from cdfss.data.pictures import nearest
from cdfss.errors import CdfssError
from cdfss.segmentation import saved, tiles
from cdfss.segmentation.segmenter import fit_supports
from cdfss.segmentation.supports import Support, Supports

QUICK = {"settings": {"scales": [1.0], "features": 96, "cells": 14}, "size": 64, "device": "cpu"}
PICTURES, MASKS = discs(3, 96)


def supports(complete=False, unknown=None, **classes):
    """Of classes, each a list of (picture, mask)."""
    listed = {
        label: [Support(f"{label}{n}", picture, mask, unknown) for n, (picture, mask) in enumerate(of)]
        for label, of in classes.items()
    }
    values = {label: number for number, label in enumerate(classes, 1)}
    return Supports(listed, values, dict.fromkeys(classes, (255, 0, 0)), complete)


@pytest.fixture(scope="module")
def fitted():
    return cdfss.fit(list(PICTURES[:2]), list(MASKS[:2]), **QUICK)


def test_a_picture_is_answered_at_its_own_size(fitted):
    picture, truth = PICTURES[2][:80], MASKS[2][:80]
    probabilities = fitted.probabilities(picture)
    assert probabilities.shape == (1, 80, 96)
    assert probabilities.dtype == np.float32
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    labels = fitted.predict(picture)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    assert np.array_equal(labels == 1, probabilities[0] >= 0.5)
    assert iou(labels == 1, truth) > 0.4


def test_paths_arrays_and_images_of_pillow_are_the_same(fitted, tmp_path):
    Image.fromarray(PICTURES[2]).save(tmp_path / "q.png")
    expected = fitted.probabilities(PICTURES[2])
    assert np.array_equal(fitted.probabilities(tmp_path / "q.png"), expected)
    assert np.array_equal(fitted.probabilities(Image.open(tmp_path / "q.png")), expected)


def test_a_loaded_file_predicts_the_same_bits_and_says_what_made_it(fitted, tmp_path):
    fitted.save(tmp_path / "mine.cdfss")
    loaded = cdfss.load(tmp_path / "mine.cdfss", "cpu")
    assert np.array_equal(loaded.probabilities(PICTURES[2]), fitted.probabilities(PICTURES[2]))
    assert loaded.how == fitted.how
    assert loaded.how["method"] == "ridge"
    assert loaded.how["made_with"]["cdfss"]
    assert (loaded.classes, loaded.values, loaded.colours) == (
        fitted.classes,
        fitted.values,
        fitted.colours,
    )
    # Two pictures of 64 x 64 and their masks, a bit a pixel.
    assert (tmp_path / "mine.cdfss").stat().st_size < 2 * (3 * 64**2 + 64**2 // 8) + 4000


def test_new_pictures_are_read_in_the_range_of_the_labelled_ones(tmp_path):
    pictures, masks = discs(3, size=64)
    deep = [16 * picture[..., 0].astype(np.uint16) for picture in pictures]
    for number, values in enumerate(deep):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    made = cdfss.fit(paths[:2], list(masks[:2]), size=64, method="prototypes", value_range=(0, 4095))
    made.save(tmp_path / "m.cdfss")
    loaded = cdfss.load(tmp_path / "m.cdfss")
    assert loaded.how["value_range"] == [0, 4095]
    assert loaded.supports.value_range == (0, 4095)
    for one in (made, loaded):
        assert np.array_equal(
            one.read(paths[2]), np.stack([(deep[2] / 4095 * 255 + 0.5).astype(np.uint8)] * 3, 2)
        )
        assert np.array_equal(one.predict(paths[2]), made.predict(made.read(paths[2])))


def with_entry(path, change):
    """A copy of a saved file whose metadata `change` has changed."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    entry = json.loads(header["__metadata__"]["cdfss"])
    change(entry)
    header["__metadata__"]["cdfss"] = json.dumps(entry)
    text = json.dumps(header).encode()
    other = path.with_name("changed.cdfss")
    other.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return other


def test_broken_foreign_and_newer_files_are_refused_in_words(fitted, checkpoint, tmp_path):
    path = tmp_path / "mine.cdfss"
    fitted.save(path)
    content = path.read_bytes()
    wrong = {"cut.cdfss": content[:-100], "text.cdfss": b"no model", "empty.cdfss": b""}
    wrong["flipped.cdfss"] = content[:-50] + bytes([content[-50] ^ 1]) + content[-49:]
    for name, found in wrong.items():
        (tmp_path / name).write_bytes(found)
        with pytest.raises(CdfssError, match=rf"{name} cannot be read .*fit again"):
            cdfss.load(tmp_path / name)
    with pytest.raises(CdfssError, match=r"not there; expected a file that Segmenter.save"):
        cdfss.load(tmp_path / "none.cdfss")
    with pytest.raises(CdfssError, match=r"cdfss-hsnet-1.*given as checkpoint"):
        cdfss.load(checkpoint)

    def newer(entry):
        entry["format"] = "cdfss-segmenter-2"
        entry["how"]["made_with"]["cdfss"] = "9.1"

    with pytest.raises(CdfssError, match=r"written by cdfss 9.1.*install that version"):
        cdfss.load(with_entry(path, newer))
    with pytest.raises(CdfssError, match=r"is not what was written"):
        cdfss.load(with_entry(path, lambda entry: entry["how"].update(seed=5)))


OWN = """
import numpy as np
from cdfss.methods.contract import Method, Prediction

class Bright(Method):
    def fit(self, pictures, masks):
        self.least = pictures[masks].mean()

    def predict(self, pictures):
        return Prediction((pictures.mean(-1) >= self.least).astype(np.float32))
"""


def test_a_file_runs_code_of_ones_own_only_when_told_to(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    name = f"{tmp_path}/own.py:Bright"
    own = cdfss.fit([PICTURES[0]], [MASKS[0]], method=name, size=64)
    own.save(tmp_path / "own.cdfss")
    with pytest.raises(CdfssError, match=r"own.py:Bright, which is no code of cdfss.*own_code=True"):
        cdfss.load(tmp_path / "own.cdfss")
    loaded = cdfss.load(tmp_path / "own.cdfss", own_code=True)
    assert np.array_equal(loaded.predict(PICTURES[1]), own.predict(PICTURES[1]))
    (tmp_path / "own.py").write_text(OWN.replace(">=", ">"))
    assert "was another" in cdfss.load(tmp_path / "own.cdfss", own_code=True).how["remarks"][-1]


def test_tuned_modules_are_kept_and_a_loaded_model_takes_no_step(checkpoint, tmp_path, monkeypatch):
    from cdfss.methods.adam import Adam

    how = {"method": "hsnet", "checkpoint": checkpoint, "size": 64, "device": "cpu"}
    settings = {"modules": ["apm_m", "acpa"], "steps": 2, "learning_rate": 0.5}
    half = np.arange(96 * 96).reshape(96, 96) % 96 < 48  # seen on maps of 2 x 2, as a disc is not
    tuned = cdfss.fit([PICTURES[0]], [half], settings=settings, **how)
    tuned.save(tmp_path / "mine.cdfss")
    untuned = cdfss.fit([PICTURES[0]], [half], settings=settings | {"steps": 0}, **how)
    monkeypatch.delattr(Adam, "step")
    loaded = cdfss.load(tmp_path / "mine.cdfss", "cpu")
    assert np.array_equal(loaded.probabilities(PICTURES[1]), tuned.probabilities(PICTURES[1]))
    assert not np.array_equal(untuned.probabilities(PICTURES[1]), tuned.probabilities(PICTURES[1]))

    moved = checkpoint.rename(tmp_path / "moved.safetensors")
    with pytest.raises(CdfssError, match=r"is not there; give its file as checkpoint .sha256"):
        cdfss.load(tmp_path / "mine.cdfss")
    assert cdfss.load(tmp_path / "mine.cdfss", checkpoint=moved).how["checkpoint"]["path"] == str(moved)
    moved.write_bytes(moved.read_bytes() + b" ")
    with pytest.raises(CdfssError, match=r"was fitted with another checkpoint"):
        cdfss.load(tmp_path / "mine.cdfss", checkpoint=moved)


def test_each_class_has_its_value_and_the_backbone_sees_a_picture_once(monkeypatch):
    from cdfss.backbones.timm import EfficientNetLite0

    blue, rest = discs(1, 96, seed=5, colour=(40, 60, 230))
    given = supports(
        red=[(PICTURES[0], MASKS[0])], blue=[(blue[0], rest[0])], dark=[(PICTURES[0], ~MASKS[0])]
    )
    three = fit_supports(given, **QUICK)
    seen, maps = Counter(), EfficientNetLite0.maps

    def counted(self, network, images):
        seen["calls"] += 1
        return maps(self, network, images)

    monkeypatch.setattr(EfficientNetLite0, "maps", counted)
    labels = three.predict(PICTURES[2])
    assert seen["calls"] == 2  # as it is and mirrored, for three classes
    probabilities = three.probabilities(PICTURES[2])
    assert seen["calls"] == 2
    assert iou(labels == 1, MASKS[2]) > 0.4
    assert (labels == 3).sum() > 0.5 * (~MASKS[2]).sum()
    assert np.array_equal(labels == 0, probabilities.max(0) < 0.5)


def test_no_unlabelled_pixel_is_taken_for_background():
    """What is unknown beside the object may be anything: nothing changes when it does."""
    unknown = np.zeros((64, 64), bool)
    unknown[:, :16] = True
    pictures, masks = discs(2, 64, seed=3)
    mask = masks[0] & ~unknown

    def fitted(label, **how):
        return fit_supports(supports(it=[(pictures[0], label)], **how), **QUICK).probabilities(pictures[1])

    without = fitted(mask, unknown=unknown)
    assert np.array_equal(without, fitted(mask, unknown=unknown))
    assert not np.array_equal(without, fitted(mask))  # as background
    everything = ~mask
    with pytest.raises(CdfssError, match=r"foreground everywhere"):
        fitted(mask, unknown=everything)


def test_methods_that_cannot_leave_unknown_pixels_out_say_so():
    unknown = np.zeros((96, 96), bool)
    unknown[:4] = True
    given = supports(disc=[(PICTURES[0], MASKS[0])], unknown=unknown)
    assert fit_supports(given, method="copy", size=64).how["remarks"] == [
        "disc: copy takes unknown pixels as background"
    ]


def test_pictures_without_a_class_help_where_the_method_can_use_them():
    given = supports(disc=[(PICTURES[0], MASKS[0]), (PICTURES[1], np.zeros_like(MASKS[1]))])
    assert len(fit_supports(given, **QUICK).supports.classes["disc"]) == 2
    left_out = fit_supports(given, method="copy", size=64)
    assert len(left_out.supports.classes["disc"]) == 1
    assert left_out.how["remarks"] == [
        "disc: copy learns nothing from pictures without it, and leaves out disc1"
    ]


def test_tiles_of_a_smooth_prediction_show_no_seam():
    height, width = 230, 410
    y, x = np.mgrid[:height, :width]
    smooth = (0.5 + 0.4 * np.sin(x / 40) * np.cos(y / 30)).astype(np.float32)

    def shifted(rows, columns):
        """Each tile is off by a value of its own, as a threshold of its own makes it."""
        return smooth[None, rows, columns] + 0.1 * np.float32((rows.start + columns.start) / 50 % 2)

    strips = list(tiles.blended((height, width), 100, shifted))
    whole = np.concatenate(strips, 1)
    assert whole.shape == (1, height, width)
    assert len(strips) > 1
    steps = max(np.abs(np.diff(whole[0] - smooth, axis=axis)).max() for axis in (0, 1))
    assert steps < 0.02  # a seam would be a step of 0.1
    exact = np.concatenate(list(tiles.blended((height, width), 100, lambda r, c: smooth[None, r, c])), 1)
    assert np.allclose(exact[0], smooth, atol=1e-6)


def test_a_large_picture_is_seen_in_tiles_of_the_supports_size(fitted):
    pictures, masks = discs(6, 96, seed=9)
    large = np.concatenate([np.concatenate(pictures[:3], 1), np.concatenate(pictures[3:], 1)])
    truth = np.concatenate([np.concatenate(masks[:3], 1), np.concatenate(masks[3:], 1)])
    seen, one = [], fitted._fitted[0]
    before = one.probabilities
    one.probabilities = lambda given: seen.append(given.shape) or before(given)
    try:
        labels = fitted.predict(large)
    finally:
        one.probabilities = before
    assert labels.shape == (192, 288)
    assert len(seen) == len(tiles.starts(192, 96)) * len(tiles.starts(288, 96)) > 6
    assert iou(labels == 1, truth) > 0.4


def test_large_supports_are_cut_where_a_tile_is_given():
    picture, mask = np.concatenate(PICTURES, 1), np.concatenate(MASKS, 1)
    cut = fit_supports(supports(disc=[(picture, mask)]), tile=96, **QUICK)
    parts = cut.supports.classes["disc"]
    assert parts[0].name == "disc0 at 0, 0"
    assert len(parts) == len(tiles.starts(288, 96))
    assert cut.how["remarks"] == [f"disc: 1 supports are seen in {len(parts)} of {len(parts)} tiles"]
    assert iou(cut.predict(PICTURES[2]) == 1, MASKS[2]) > 0.4


EMPTY, FULL = np.zeros((96, 96), bool), np.ones((96, 96), bool)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 8}, "size is 8; expected a whole number of pixels, at least 32"),
        ({"size": 64.5}, "size is 64.5"),
        ({"tile": 0}, "tile is 0; expected"),
        ({"device": "gpu"}, "device is 'gpu'; expected 'auto', 'cpu' or 'cuda'"),
        ({"method": "rigde"}, "did you mean 'ridge'"),
        ({"settings": {"scale": [1.0]}}, "'ridge': settings are not as it wants them: scale"),
        ({"method": "auto"}, "method 'auto' chooses"),
        ({"backbone": "resnet51"}, "'resnet51' is unknown; known are resnet18"),
        ({"backbone": "resnet50"}, "'resnet50' needs its published weights: download"),
        ({"weights": "none.pth", "backbone": "resnet50"}, "weights: none.pth cannot be read"),
        ({"checkpoint": "c.pt"}, "'ridge' takes no checkpoint"),
        ({"method": "hsnet", "settings": {}}, "needs a source-trained model of HSNet"),
        (
            {"method": "hsnet", "settings": {}, "backbone": "vit_small_patch16_dinov3"},
            "HSNet compares maps at strides 8, 16 and 32",
        ),
        (
            {"method": "hsnet", "settings": {"modules": ["apm_m"], "learning_rate": {"a": 0.1}}},
            "learning_rate has a rate for each domain; give one number",
        ),
        ({"supports": {}}, "there are no supports"),
        ({"supports": {"disc": [(PICTURES[0], EMPTY)]}}, "class 'disc': none of its 1 supports shows it"),
        ({"supports": {"disc": [(PICTURES[0], FULL)]}}, "class 'disc': its masks .disc0. are foreground"),
    ],
)
def test_what_cannot_be_fitted_is_said(changes, said):
    given = supports(**changes.pop("supports", {"disc": [(PICTURES[0], MASKS[0])]}))
    with pytest.raises(CdfssError, match=said):
        fit_supports(given, **(QUICK | changes))


def test_an_object_that_vanishes_at_the_size_is_said():
    mask = EMPTY.copy()
    mask[1, 1] = True
    with pytest.raises(CdfssError, match=r"'disc' .1 of 96 x 96 pixels. vanishes at size 32; take a"):
        fit_supports(supports(disc=[(PICTURES[0], mask)]), **(QUICK | {"size": 32}))


def test_a_picture_of_several_classes_is_kept_once(tmp_path):
    both = cdfss.fit([PICTURES[0]], {"in": [MASKS[0]], "out": [~MASKS[0]]}, method="copy", size=64)
    both.save(tmp_path / "both.cdfss")
    assert (tmp_path / "both.cdfss").stat().st_size < 3 * 64**2 + 2 * 64**2 // 8 + 3000
    loaded = cdfss.load(tmp_path / "both.cdfss")
    assert loaded.classes == ("in", "out")
    assert np.array_equal(loaded.predict(PICTURES[0]) == 2, nearest_at_own_size(~MASKS[0]))


def nearest_at_own_size(mask):
    """Where the mask, seen at 64 x 64, has 0.5 back at its own size."""
    seen = Image.fromarray(nearest(mask, 64).astype(np.float32))
    return np.array(seen.resize(mask.shape[::-1], Image.Resampling.BILINEAR)) > 0.5


def test_auto_chooses_by_the_tiles_that_are_learnt_from(monkeypatch):
    from cdfss.segmentation import trust

    seen = []
    chosen = trust.Candidate("prototypes", "prototypes"), "said"
    monkeypatch.setattr(trust, "choose", lambda given, **how: seen.append(given) or chosen)
    cdfss.fit([PICTURES[0]], [MASKS[0]], method="auto", size=64, tile=48)
    assert {one.picture.shape for one in seen[0].classes["foreground"]} == {(48, 48, 3)}


def test_auto_takes_what_trust_chooses_and_says_so(monkeypatch):
    from cdfss.segmentation import trust

    chosen = trust.Candidate("copies", "copy"), "copies it is"
    monkeypatch.setattr(trust, "choose", lambda supports, **given: chosen)
    how = cdfss.fit([PICTURES[0]], [MASKS[0]], method="auto", size=64).how
    assert how["method"] == "copy"
    assert how["remarks"] == ["copies it is"]


def test_too_little_memory_is_said_with_what_helps(fitted, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(fitted._fitted[0].method, "predict", fails)
    with pytest.raises(CdfssError, match=r"ran out of memory at size 64 .*take a smaller size"):
        fitted.predict(PICTURES[2])


def test_equal_fits_make_equal_files(fitted, tmp_path):
    again = cdfss.fit(list(PICTURES[:2]), list(MASKS[:2]), **QUICK)
    for name, one in (("a", fitted), ("b", again)):
        saved.write(tmp_path / name, one.supports, one.how, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
