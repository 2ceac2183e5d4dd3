import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import square_mask, write_picture
from PIL import Image
from reference import episodes, numbers

from cdfss import CdfssError
from cdfss.data import index, pictures
from cdfss.data.formats import deepglobe

BASE = (40, 30)


def build(settings, root, **more):
    lines = []
    built = index.build(settings(root, **more), root / "index.parquet", 2, lines.append)
    return built, "\n".join(lines)


def test_a_folder_of_pairs_becomes_an_index(settings, folder_data):
    built, log = build(settings, folder_data)
    rows = built.rows
    assert rows["class_name"].tolist() == ["roof"] * 6 + ["tree"] * 6
    assert rows["image"].iloc[0] == "roof/images/0.jpg"
    assert (rows["height"] == 30).all()
    assert (rows["width"] == 40).all()
    assert rows["foreground"].iloc[0] == pytest.approx(15 * 15 / 1200)
    assert "2 classes" in log
    again = index.load(folder_data / "index.parquet")
    assert again.rows["image"].tolist() == rows["image"].tolist()
    assert again.root == folder_data.resolve()


def damaged(root):
    """Damage a folder data set in every way that is looked for; returns what must be reported."""
    images, masks = root / "roof" / "images", root / "roof" / "masks"
    whole = (images / "0.jpg").read_bytes()
    (images / "0.jpg").write_bytes(whole[: len(whole) // 2])
    write_picture(masks / "1.png", mask=square_mask((20, 20)))
    (masks / "2.png").unlink()
    write_picture(masks / "99.png", mask=square_mask())
    (images / "notes.txt").write_text("hello")
    (images / "3.jpg").write_text("not a picture")
    (root / "single" / "images").mkdir(parents=True)
    write_picture(root / "single" / "images" / "a.jpg")
    write_picture(root / "single" / "masks" / "a.png", mask=square_mask())
    return [
        "roof/images/0.jpg: image cannot be read",
        "roof/masks/1.png: mask is 20 x 20 pixels, its image roof/images/1.jpg 40 x 30",
        "roof/images/2.jpg: image without a mask",
        "roof/masks/99.png: mask without an image",
        "roof/images/notes.txt: is not a picture",
        "roof/images/3.jpg: image cannot be read",
        "single/images/a.jpg: is the only usable picture of class single; at least 2",
    ]


def test_all_bad_files_are_listed_at_once(settings, folder_data):
    expected = damaged(folder_data)
    with pytest.raises(CdfssError) as error:
        build(settings, folder_data)
    text = str(error.value)
    for line in expected:
        assert line in text
    assert f"mine: {len(expected)} bad files" in text
    assert "data.mine.on_bad_pair: skip" in text
    assert not (folder_data / "index.parquet").exists()


def test_bad_files_are_skipped_when_asked_and_counted(settings, folder_data):
    import pyarrow.parquet as pq

    expected = damaged(folder_data)
    built, log = build(settings, folder_data, on_bad_pair="skip")
    assert len(built.rows) == 12 - 4
    assert f"left out {len(expected)} bad files" in log
    facts = json.loads(pq.read_schema(folder_data / "index.parquet").metadata[b"cdfss"])
    assert facts["bad"] == len(expected)
    assert facts["pairs"] == 8


def test_masks_of_zeros_and_ones_are_understood(tmp_path):
    path = write_picture(tmp_path / "m.png", mask=square_mask(value=1))
    assert pictures.binary_foreground(path).sum() == 15 * 15
    path = write_picture(tmp_path / "n.png", mask=square_mask(value=127))
    assert pictures.binary_foreground(path).sum() == 0


def test_image_and_mask_are_resized_as_published(tmp_path):
    import torch

    from cdfss.backbones.facts import BACKBONES
    from cdfss.backbones.normalisation import normalise

    theirs = numbers("transform")
    image = write_picture(tmp_path / "i.png", mask=theirs["image"])
    mask = write_picture(tmp_path / "m.png", mask=theirs["mask"].astype(np.uint8) * 255)
    picture = torch.from_numpy(pictures.read_image(image, 400))[None]
    ours = normalise(picture, BACKBONES["resnet50"])[0, :, ::8, ::8]
    assert np.abs(ours.numpy() - theirs["image_tensor_every_8th"]).max() < 1e-4
    foreground, void = pictures.read_mask(mask, None, 400)
    assert (foreground == np.unpackbits(theirs["mask_resized"]).reshape(400, 400)).all()
    assert not void.any()


def voc(root, extra_line=None, void=True):
    labels = square_mask(value=3)
    labels[0, 0] = 17
    if void:
        labels[4, :] = 255
    for name in ("2007_01", "2007_02", "2007_03"):
        write_picture(root / "JPEGImages" / f"{name}.jpg")
        write_picture(root / "SegmentationClassAug" / f"{name}.png", mask=labels)
    (root / "splits").mkdir()
    for fold in range(4):
        lines = ["2007_02__03", "2007_01__03"] if fold == 0 else []
        lines += ["2007_01__17", "2007_03__17"] if fold == 3 else []
        lines += [extra_line] if extra_line and fold == 1 else []
        (root / "splits" / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")


def test_pascal_lists_give_one_row_an_image_and_class(settings, tmp_path):
    voc(tmp_path)
    built, _ = build(settings, tmp_path, format="pascal")
    assert built.rows[["class_id", "class_name"]].drop_duplicates().values.tolist() == [
        [2, "bird"],
        [16, "sheep"],
    ]
    assert built.rows["image"].iloc[0].endswith("2007_01.jpg")
    assert set(built.rows["split"]) == {"trn"}
    _, foreground, void = built.read(built.rows.iloc[0], 60)
    assert foreground.any()
    assert void.any()
    assert not (foreground & void).any()


def test_pascal_entries_are_in_the_published_order(settings, tmp_path):
    """First and last entries of the published list: class by class, images in order."""
    theirs = episodes()["pascal_trn_fold4"]
    entries = theirs["first_entries"] + theirs["last_entries"]
    (tmp_path / "splits").mkdir()
    for fold in range(4):
        lines = [f"{name}__{c + 1:02d}\n" for name, c in entries if c // 5 == fold]
        (tmp_path / "splits" / f"fold{fold}.txt").write_text("".join(lines))
    for name, c in entries:
        write_picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        write_picture(tmp_path / "SegmentationClassAug" / f"{name}.png", mask=square_mask(value=c + 1))
    rows = build(settings, tmp_path, format="pascal")[0].rows
    assert [[Path(image).stem, c] for image, c in zip(rows["image"], rows["class_id"])] == entries


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2007_03__05", "has no pixel of class bottle"),
        ("2007_09__03", "JPEGImages/2007_09.jpg: is in the list but missing"),
        ("nonsense", "line 1 is 'nonsense'; expected <image>__<01..20>"),
    ],
)
def test_wrong_pascal_entries_are_named(settings, tmp_path, line, message):
    voc(tmp_path, line)
    with pytest.raises(CdfssError) as error:
        build(settings, tmp_path, format="pascal")
    assert message in str(error.value)


def test_pascal_labels_are_made_from_sbd_where_they_are_missing(settings, tmp_path):
    from scipy.io import savemat

    voc(tmp_path / "VOCdevkit" / "VOC2012")
    base = tmp_path / "VOCdevkit" / "VOC2012"
    (base / "SegmentationClassAug" / "2007_01.png").rename(tmp_path / "kept.png")
    (base / "SegmentationClass").mkdir()
    (tmp_path / "kept.png").rename(base / "SegmentationClass" / "2007_01.png")
    cls = tmp_path / "benchmark_RELEASE" / "dataset" / "cls"
    cls.mkdir(parents=True)
    for name in ("2007_02", "2007_03"):
        labels = np.array(Image.open(base / "SegmentationClassAug" / f"{name}.png"))
        savemat(cls / f"{name}.mat", {"GTcls": {"Segmentation": labels}})
        (base / "SegmentationClassAug" / f"{name}.png").unlink()
    (base / "SegmentationClassAug").rmdir()
    built, log = build(settings, tmp_path, format="pascal", splits=base / "splits")
    assert len(built.rows) == 4
    assert "labels from sbd 2" in log
    _, foreground, _ = built.read(built.rows.iloc[1], 60)
    assert foreground.any()


def fss(root):
    for name in ("abacus", "bird", "cat"):
        for number in range(1, 11):
            write_picture(root / name / f"{number}.jpg", seed=number)
            write_picture(root / name / f"{number}.png", mask=square_mask())
    (root / "splits").mkdir()
    (root / "splits" / "trn.txt").write_text("cat\n")
    (root / "splits" / "val.txt").write_text("bird\n")
    (root / "splits" / "test.txt").write_text("abacus\n")


def test_fss_classes_count_on_over_the_splits(settings, tmp_path):
    fss(tmp_path)
    built, _ = build(settings, tmp_path, format="fss1000")
    assert built.rows.drop_duplicates("class_id")[["class_id", "class_name", "split"]].values.tolist() == [
        [0, "cat", "trn"],
        [1, "bird", "val"],
        [2, "abacus", "test"],
    ]
    assert built.rows["image"].iloc[:2].tolist() == ["cat/1.jpg", "cat/10.jpg"]


def test_missing_split_lists_are_named_with_the_places_looked_at(settings, tmp_path):
    with pytest.raises(CdfssError, match=r"data\.mine\.splits: no test\.txt in"):
        build(settings, tmp_path, format="fss1000")


def land(root, number=1, change=None):
    """Tiles of 60 x 60: pieces of 10 x 10, left half forest, right half water, one corner unknown."""
    for tile in range(number):
        colours = np.zeros((60, 60, 3), np.uint8)
        colours[:, :35] = (0, 255, 0)
        colours[:, 35:] = (0, 0, 255)
        colours[:3, 30:40] = 0
        if change:
            change(colours)
        write_picture(root / "train" / f"{tile}_sat.jpg", (60, 60), seed=tile)
        write_picture(root / "train" / f"{tile}_mask.png", mask=colours)


def test_tiles_are_cut_and_filtered(settings, tmp_path):
    land(tmp_path, 2)
    built, log = build(settings, tmp_path, format="deepglobe")
    # Of the 36 pieces only the column across the border has two colours.
    assert built.rows.groupby("class_name").size().to_dict() == {"forest": 12, "water": 12}
    assert sorted(p for p in built.rows["image"] if p.startswith("4/test/origin/0"))[0].endswith(
        "0_sat_03.jpg"
    )
    assert "pieces kept 12, pieces of one colour 60, pieces with a rare colour 0" in log
    row = built.rows[built.rows["image"] == "4/test/origin/0_sat_13.jpg"].iloc[0]
    assert row["foreground"] == pytest.approx(0.5)
    assert row["mask"] == "4/test/groundtruth/0_sat_13.png"
    top = built.rows[built.rows["image"] == "4/test/origin/0_sat_03.jpg"].iloc[0]
    assert top["foreground"] == pytest.approx(0.35)  # unknown is a colour of the filter, not a class


def test_a_prepared_tree_is_used_as_it_is(settings, tmp_path):
    land(tmp_path / "raw")
    build(settings, tmp_path / "raw", format="deepglobe")
    (prepared,) = (tmp_path / "raw" / "work" / "mine").glob("prepared-*")
    before = sorted(p for p in prepared.rglob("*"))
    built, _ = build(settings, prepared, format="deepglobe")
    assert built.root == prepared.resolve()
    assert [p for p in sorted(prepared.rglob("*")) if not p.name.startswith("index.")] == before


@pytest.mark.parametrize(
    ("shares", "reason"),
    [([100], "pieces_of_one_colour"), ([96, 4], "pieces_with_a_rare_colour"), ([95, 5], None)],
)
def test_the_filters_of_pieces(shares, reason):
    classes = np.repeat(np.arange(len(shares)), shares).reshape(10, 10)
    assert deepglobe.keeps(classes) == reason


def test_unknown_colours_and_other_sizes_of_tiles_are_named(settings, tmp_path):
    def paint(colours):
        colours[7, 7] = (255, 0, 0)

    land(tmp_path, 1, paint)
    write_picture(tmp_path / "train" / "5_sat.jpg", (60, 60))
    write_picture(tmp_path / "train" / "5_mask.png", mask=np.zeros((30, 30, 3), np.uint8))
    with pytest.raises(CdfssError) as error:
        build(settings, tmp_path, format="deepglobe")
    assert "0_sat.jpg: its mask 0_mask.png has 1 pixels of unknown colour, as (255, 0, 0)" in str(
        error.value
    )
    assert "5_sat.jpg: is 60 x 60 pixels, its mask 5_mask.png 30 x 30" in str(error.value)


def isic(root, folders):
    kinds = ["nevus", "melanoma", "seborrheic keratosis"]
    table = ["ID,Class"]
    for number in range(9):
        name, kind = f"ISIC_{number:07d}", kinds[number % 3]
        folder = {"nevus": "1", "seborrheic keratosis": "2", "melanoma": "3"}[kind] if folders else "."
        write_picture(root / "ISIC2018_Task1-2_Training_Input" / folder / f"{name}.jpg")
        mask = root / "ISIC2018_Task1_Training_GroundTruth" / f"{name}_segmentation.png"
        write_picture(mask, mask=square_mask())
        table.append(f"{name},{kind}")
    if not folders:
        (root / "class_id.csv").write_text("\n".join(table) + "\n")


@pytest.mark.parametrize("folders", [True, False])
def test_isic_classes_come_from_folders_or_the_table(settings, tmp_path, folders):
    isic(tmp_path, folders)
    built, _ = build(settings, tmp_path, format="isic2018")
    names = built.rows.drop_duplicates("class_id")["class_name"].tolist()
    assert names == ["nevus", "seborrheic_keratosis", "melanoma"]
    assert built.rows.groupby("class_id").size().tolist() == [3, 3, 3]
    assert built.rows["image"].iloc[0].endswith("ISIC_0000000.jpg")


def test_the_order_of_the_isic_classes_is_a_setting(settings, tmp_path):
    isic(tmp_path, False)
    order = ("melanoma", "nevus", "seborrheic_keratosis")
    built, _ = build(settings, tmp_path, format="isic2018", class_order=order)
    assert built.rows["class_name"].iloc[0] == "melanoma"


def test_an_isic_picture_outside_the_table_is_named(settings, tmp_path):
    isic(tmp_path, False)
    lines = (tmp_path / "class_id.csv").read_text().splitlines()
    (tmp_path / "class_id.csv").write_text("\n".join([*lines[:-1], "ISIC_7777777,nevus"]) + "\n")
    with pytest.raises(CdfssError) as error:
        build(settings, tmp_path, format="isic2018")
    assert "ISIC_0000008.jpg: is not in class_id.csv" in str(error.value)
    assert "ISIC_7777777: is in class_id.csv but missing" in str(error.value)


def test_both_namings_of_lung_masks_are_paired(settings, tmp_path):
    for name, ending in (("CHNCXR_0001_0", "_mask"), ("MCUCXR_0002_1", ""), ("CHNCXR_0003_0", "_mask")):
        write_picture(tmp_path / "CXR_png" / f"{name}.png", mode="L")
        write_picture(tmp_path / "masks" / f"{name}{ending}.png", mask=square_mask())
    write_picture(tmp_path / "CXR_png" / "CHNCXR_0009_0.png", mode="L")
    built, log = build(settings, tmp_path, format="chestxray")
    assert built.rows["mask"].tolist() == [
        "masks/CHNCXR_0001_0_mask.png",
        "masks/CHNCXR_0003_0_mask.png",
        "masks/MCUCXR_0002_1.png",
    ]
    assert "images never segmented 1" in log


@pytest.mark.parametrize("format", ["pascal", "deepglobe", "isic2018", "chestxray"])
def test_a_folder_of_something_else_is_refused_with_the_layout_expected(settings, tmp_path, format):
    with pytest.raises(CdfssError, match="expected"):
        build(settings, tmp_path, format=format)


def test_pieces_of_an_earlier_root_or_a_killed_job_are_not_taken_along(settings, tmp_path):
    land(tmp_path, 2)
    build(settings, tmp_path, format="deepglobe")
    (prepared,) = (tmp_path / "work" / "mine").glob("prepared-*")
    origin = prepared / "1" / "test" / "origin"
    (origin / ".7_sat_00.jpg.123.partial").write_bytes(b"half")
    for kind in ("sat.jpg", "mask.png"):
        (tmp_path / "train" / f"1_{kind}").unlink()
    built, _ = build(settings, tmp_path, format="deepglobe")
    assert len(built.rows) == 12


def test_a_users_masks_without_foreground_are_named(settings, folder_data):
    write_picture(folder_data / "roof" / "masks" / "4.png", mask=square_mask(value=38))
    with pytest.raises(CdfssError, match=r"roof/masks/4\.png: has no foreground"):
        build(settings, folder_data)


def prepared(settings, root, **more):
    path = root.with_name(f"{root.name}-index.parquet")
    index.build(settings(root, **more), path, 1, lambda line: None)
    return index.load_prepared(path)[0]


def test_entries_and_pictures_are_counted_and_logged(settings, tmp_path):
    voc(tmp_path)
    _, log = build(settings, tmp_path, format="pascal")
    found, facts = index.load_prepared(tmp_path / "index.parquet")
    assert found.classes == (("bird", 2), ("sheep", 2))
    assert (found.entries, found.pictures) == (4, 1)  # three files of one content
    assert facts["digest"] == found.digest
    assert f"4 entries of 1 pictures (bird 2, sheep 2); names, sizes and masks {found.digest}" in log
    many = index.Prepared(tuple((f"c{n}", 10 if n else 5) for n in range(21)), 205, None)
    assert many.in_words == "21 classes: 20 with 10, 1 with 5"


def test_the_digest_of_data_goes_by_names_sizes_and_masks_alone(settings, folder_data, tmp_path):
    first = prepared(settings, folder_data)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder_data, elsewhere)
    mask = elsewhere / "roof" / "masks" / "0.png"
    before = mask.read_bytes()
    Image.open(mask).convert("1").save(mask, compress_level=0)
    write_picture(elsewhere / "roof" / "images" / "1.jpg", seed=7)  # compressed anew, say
    assert mask.read_bytes() != before
    assert prepared(settings, elsewhere).digest == first.digest
    digests = {first.digest}

    def changes(what):
        found = prepared(settings, elsewhere).digest
        assert found not in digests, what
        digests.add(found)

    pixels = square_mask()
    pixels[0, 0] = 255
    write_picture(mask, mask=pixels)
    changes("one pixel of a mask")
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (elsewhere / "roof" / kind / f"5.{suffix}").rename(elsewhere / "roof" / kind / f"6.{suffix}")
    changes("a name")
    write_picture(elsewhere / "tree" / "images" / "0.jpg", size=(30, 40))
    write_picture(elsewhere / "tree" / "masks" / "0.png", mask=square_mask().reshape(40, 30))
    changes("a size, with the same bits in the mask")
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (elsewhere / "tree" / kind / f"5.{suffix}").unlink()
    changes("a pair less")


def test_the_digest_does_not_go_by_the_folder_in_a_root(settings, tmp_path):
    for folder in ("one", "two/LungSegmentation"):
        for kind, name in (("CXR_png", "a_1.png"), ("masks", "a_1_mask.png")):
            for number in (1, 2):
                file = tmp_path / folder / kind / name.replace("1", str(number))
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.zeros((40, 40), np.uint8)
                pixels[:20] = 255 if kind == "masks" else 90 + number
                Image.fromarray(pixels).save(file)
    first, second = (
        prepared(settings, tmp_path / root, format="chestxray").digest for root in ("one", "two")
    )
    assert first == second


def test_the_digest_does_not_go_by_the_order_of_files_or_classes(settings, tmp_path):
    isic(tmp_path, False)
    orders = (["nevus", "seborrheic_keratosis", "melanoma"], ["melanoma", "nevus", "seborrheic_keratosis"])
    first, second = (prepared(settings, tmp_path, format="isic2018", class_order=order) for order in orders)
    assert first.digest == second.digest
    assert dict(first.classes) == dict(second.classes)
    assert first.classes != second.classes


def test_the_digest_of_index_masks_goes_by_their_values(settings, tmp_path):
    voc(tmp_path)
    first = prepared(settings, tmp_path, format="pascal").digest
    mask = tmp_path / "SegmentationClassAug" / "2007_02.png"
    labels = np.array(Image.open(mask))
    labels[-1, -1] = 5  # of a class that no entry is of
    write_picture(mask, mask=labels)
    assert prepared(settings, tmp_path, format="pascal").digest != first


def test_an_index_of_before_has_counts_and_no_digest(settings, folder_data):
    import pyarrow.parquet as pq

    new = prepared(settings, folder_data)
    path = folder_data.with_name("mine-index.parquet")
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"cdfss"])
    del facts["digest"]
    pq.write_table(table.replace_schema_metadata({"cdfss": json.dumps(facts)}), path)
    old = index.load_prepared(path)[0]
    assert old.digest is None
    assert (old.classes, old.pictures) == (new.classes, new.pictures)
    assert index.load(path).identity == facts["identity"]


@pytest.mark.parametrize("shape", [(30, 40), (7, 50), (400, 3), (16, 16)])
@pytest.mark.parametrize("value", [None, 3])
def test_a_whole_mask_counts_the_pixels_that_take_each_position(settings, tmp_path, shape, value):
    from cdfss.data import metrics

    generator, size = np.random.RandomState(0), 16
    labels = generator.choice([0, 3, 5, 255] if value else [0, 255], shape).astype(np.uint8)
    write_picture(tmp_path / "m.png", mask=labels)
    content = (tmp_path / "m.png").read_bytes()
    row = {"mask": "m.png", "mask_value": value, "mask_sha256": hashlib.sha256(content).hexdigest()}
    row |= {"height": shape[0], "width": shape[1]}
    made = index.Index("mine", "pascal", tmp_path, None)
    foreground, void, own = made.read_whole_mask(row, size)
    assert all(map(np.array_equal, (foreground, void), made.read_mask(row, size)))
    prediction = generator.rand(size, size) < 0.5
    # What torch makes of it, counted pixel by pixel.
    import torch

    enlarged = torch.nn.functional.interpolate(torch.tensor(prediction)[None, None].float(), shape)[0, 0]
    truth, left_out = (labels == value, labels == 255) if value else (labels == 255, None)
    expected = metrics.counts(enlarged.numpy(), truth, left_out)
    assert all(map(np.array_equal, metrics.counts_at_own_size(prediction, own), expected))
