"""Pictures that were edited, added or removed are noticed; touched and copied ones are the same."""

import os
import shutil

import numpy as np
import pytest
from conftest import square_mask, write_picture

from cdfss import CdfssError
from cdfss.data import index, places, synthetic, tracking


@pytest.fixture
def indexed(settings, folder_data):
    given = settings(folder_data)
    path = folder_data.parent / "index" / "test.parquet"
    built = index.build(given, path, 1, lambda line: None)
    return given, path, built


def picture(root):
    return root / "roof" / "images" / "0.jpg"


def later(path):
    """A time of change that no file system takes for the same."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 5 * 10**9))


def test_nothing_changed_is_nothing_new(indexed):
    given, path, _ = indexed
    assert tracking.key(given, path) == tracking.FIRST
    assert tracking.key(given, path.with_name("never.parquet")) == tracking.FIRST


def test_touched_and_copied_pictures_are_the_same(indexed, folder_data, settings, tmp_path):
    given, path, built = indexed
    for file in folder_data.rglob("*.*"):
        later(file)
    assert tracking.key(given, path) == tracking.FIRST
    copied = tmp_path / "copy"
    for file in folder_data.rglob("*.*"):
        target = copied / file.relative_to(folder_data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    moved = settings(copied)
    assert tracking.key(moved, path) == tracking.FIRST
    # The next run lets the index find its pictures there.
    shutil.rmtree(folder_data)
    tracking.refresh(moved, path)
    found = index.load(path)
    assert found.root == copied.resolve()
    assert found.identity == built.identity
    found.read(found.rows.iloc[0], 32)


@pytest.mark.parametrize("kind", ["images", "masks"])
@pytest.mark.parametrize("how", ["content", "size", "added", "removed", "renamed", "another class"])
def test_every_change_is_noticed_and_ends_with_the_new_index(how, kind, indexed, folder_data):
    given, path, built = indexed
    first = folder_data / "roof" / kind / ("0.jpg" if kind == "images" else "0.png")
    pair = [folder_data / "roof" / k for k in ("images/0.jpg", "masks/0.png")]
    if how == "content":
        content = bytearray(first.read_bytes())
        content[-3] ^= 1
        first.write_bytes(content)
        later(first)
    elif how == "size":
        first.write_bytes(first.read_bytes() + b" ")
    elif how == "added":
        write_picture(folder_data / "roof" / "images" / "9.jpg")
        write_picture(folder_data / "roof" / "masks" / "9.png", mask=square_mask())
    elif how == "removed":
        for file in pair:
            file.unlink()
    elif how == "renamed":
        for file in pair:
            file.rename(file.with_stem("00"))
    else:
        for file in pair:
            target = folder_data / "tree" / file.parent.name / f"9{file.suffix}"
            file.rename(target)
    changed = tracking.key(given, path)
    assert changed != tracking.FIRST
    assert tracking.key(given, path) == changed
    if how != "content":  # which may be no picture any more
        again = index.build(given, path, 1, lambda line: None)
        assert tracking.key(given, path) == changed
        assert again.identity != built.identity


def test_what_no_reader_looks_at_changes_nothing(indexed, folder_data):
    given, path, _ = indexed
    (folder_data / ".DS_Store").write_text("x")
    (folder_data / "roof" / "images" / "Thumbs.db").write_text("x")
    assert tracking.key(given, path) == tracking.FIRST


def test_of_a_data_set_with_splits_each_is_tracked_by_itself(settings, tmp_path):
    for name in ("cat", "dog"):
        for number in range(1, 4):
            write_picture(tmp_path / name / f"{number}.jpg", seed=number)
            write_picture(tmp_path / name / f"{number}.png", mask=square_mask())
    (tmp_path / "splits").mkdir()
    for split, names in (("trn", ""), ("val", "cat"), ("test", "dog")):
        (tmp_path / "splits" / f"{split}.txt").write_text(f"{names}\n")
    given = {split: settings(tmp_path, "fss1000") | {"split": split} for split in ("val", "test")}
    paths = {split: tmp_path / "work" / f"{split}.parquet" for split in given}
    for split in given:
        built = index.build(given[split], paths[split], 1, lambda line: None)
        assert set(built.rows["split"]) == {split}
    write_picture(tmp_path / "dog" / "1.jpg", seed=7)
    assert tracking.key(given["val"], paths["val"]) == tracking.FIRST
    assert tracking.key(given["test"], paths["test"]) != tracking.FIRST
    (tmp_path / "splits" / "val.txt").write_text("dog\n")
    (tmp_path / "splits" / "test.txt").write_text("cat\n")
    assert tracking.key(given["val"], paths["val"]) != tracking.FIRST
    with pytest.raises(CdfssError, match="split 'trn' is empty; there are test, val"):
        index.build(settings(tmp_path, "fss1000") | {"split": "trn"}, tmp_path / "t.parquet", 1)


def test_a_changed_picture_is_refused_when_it_is_read(indexed, folder_data):
    """Whatever its time says: rows are of the pictures that were indexed, or are not made."""
    _, path, _ = indexed
    found = index.load(path)
    file = picture(folder_data)
    before = file.stat()
    write_picture(file, seed=99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CdfssError, match=r"0\.jpg in .* has another content than when it was indexed"):
        found.read(found.rows.iloc[0], 32)
    file.unlink()
    with pytest.raises(CdfssError, match=r"0\.jpg in .* cannot be read any more"):
        found.read(found.rows.iloc[0], 32)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "roof/../../x.png"])
def test_an_index_that_points_outside_of_its_root_is_refused(indexed, name):
    _, path, built = indexed
    rows = built.rows.copy()
    rows.loc[0, "mask"] = name
    edited = index.Index(built.name, built.format, built.root, rows)
    index.save(edited, path, {"below": "."})
    with pytest.raises(CdfssError, match="lies outside of its root"):
        index.load(path)


@pytest.mark.parametrize("how", ["damaged", "deleted"])
def test_pictures_of_an_index_without_a_record_count_as_changed(how, indexed):
    given, path, _ = indexed
    record = tracking.record_path(path)
    if how == "damaged":
        record.write_bytes(record.read_bytes()[:-50])
    else:
        record.unlink()
    assert tracking.key(given, path) != tracking.FIRST
    assert tracking.recorded(path) is None
    index.build(given, path, 1, lambda line: None)
    assert tracking.recorded(path) == tracking.key(given, path)


def test_pictures_that_change_while_they_are_indexed_are_refused(settings, folder_data, monkeypatch):
    """As while they are still being copied: else the record would be of others than the index."""
    given, path = settings(folder_data), folder_data.parent / "index" / "test.parquet"
    measure = index._open_all

    def meanwhile(*arguments):
        found = measure(*arguments)
        write_picture(folder_data / "roof" / "masks" / "2.png", mask=square_mask((40, 30), 200))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(index, "_open_all", meanwhile)
        with pytest.raises(CdfssError, match=r"changed while they were indexed\. Run"):
            index.build(given, path, 1, lambda line: None)
    assert not path.exists()
    assert tracking.recorded(path) is None


def test_another_folder_is_compared_by_content_whatever_its_times_say(indexed, folder_data, settings):
    _, path, _ = indexed
    other = folder_data.parent / "other"
    shutil.copytree(folder_data, other)  # with all times
    assert tracking.key(settings(other), path) == tracking.FIRST
    file = other / "roof" / "masks" / "0.png"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tracking.key(settings(other), path) != tracking.FIRST


def test_labels_of_sbd_are_tracked_with_their_lists_and_nothing_else(settings, tmp_path):
    from scipy.io import savemat

    voc = tmp_path / "root" / "VOCdevkit" / "VOC2012"
    for name in ("a", "b", "c"):
        write_picture(voc / "JPEGImages" / f"{name}.jpg", seed=ord(name))
        (tmp_path / "root" / "dataset" / "cls").mkdir(parents=True, exist_ok=True)
        labels = {"GTcls": {"Segmentation": square_mask(value=3)}}
        savemat(tmp_path / "root" / "dataset" / "cls" / f"{name}.mat", labels)
    (voc / "SegmentationClass").mkdir()
    (voc / "splits").mkdir()
    for fold in range(4):
        (voc / "splits" / f"fold{fold}.txt").write_text("a__03\nb__03\n" if fold == 0 else "")
    given = settings(tmp_path / "root", "pascal") | {"folder": str(tmp_path / "work")}
    path = tmp_path / "index" / "trn.parquet"
    built = index.build(given, path, 1, lambda line: None)  # its lists are those beside VOC
    assert len(built.rows) == 2
    for junk in ("Thumbs.db", "notes.txt", "papers.pdf"):
        (voc / junk).write_text("x")
    assert tracking.key(given, path) == tracking.FIRST
    (voc / "splits" / "fold2.txt").write_text("c__03\n")
    assert tracking.key(given, path) != tracking.FIRST
    assert len(index.build(given, path, 1, lambda line: None).rows) == 3
    # The whole project moved: pieces lie where they did relative to the index.
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("root", "work", "index"):
        (tmp_path / name).rename(moved / name)
    assert index.load(moved / "index" / "trn.parquet").root == next(
        (moved / "work" / "mine").glob("prepared-*")
    )


def test_pieces_that_have_to_be_made_are_tracked_by_what_they_are_made_from(settings, tmp_path):
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[:, :35], colours[:, 35:] = (0, 255, 0), (0, 0, 255)
    for tile in range(2):
        write_picture(tmp_path / "train" / f"{tile}_sat.jpg", (60, 60), seed=tile)
        write_picture(tmp_path / "train" / f"{tile}_mask.png", mask=colours)
    given = settings(tmp_path, "deepglobe") | {"folder": str(tmp_path.parent / "work")}
    path = tmp_path.parent / "index" / "test.parquet"
    built = index.build(given, path, 1, lambda line: None)
    assert tracking.key(given, path) == tracking.FIRST
    # A second run, or a second index of the same tiles, takes the pieces that are there.
    before = {file: file.stat().st_mtime_ns for file in built.root.rglob("*.*")}
    again = index.build(given, path.with_name("again.parquet"), 1, lambda line: None)
    assert again.identity == built.identity
    assert {file: file.stat().st_mtime_ns for file in built.root.rglob("*.*")} == before
    other = settings(tmp_path / "other", "deepglobe") | {"folder": given["folder"]}
    shutil.copytree(tmp_path / "train", tmp_path / "other" / "train")
    write_picture(tmp_path / "other" / "train" / "0_sat.jpg", (60, 60), seed=5)
    elsewhere = index.build(other, path.with_name("other.parquet"), 1, lambda line: None)
    assert elsewhere.root != built.root  # pieces of two roots never share a folder
    index.load(path).read(built.rows.iloc[0], 32)
    write_picture(tmp_path / "train" / "1_sat.jpg", (60, 60), seed=9)
    assert tracking.key(given, path) != tracking.FIRST
    assert index.build(given, path, 1, lambda line: None).identity != built.identity
    assert not list(built.root.parent.glob("*.partial"))


def test_files_of_another_origin_have_one_key_before_and_after_they_come(tmp_path):
    """Or all that depends on them would run twice."""

    def at(scale):
        settings = {"format": "fss1000", "root": None, "splits": None, "download": None}
        settings |= {"name": "objects", "folder": str(tmp_path), "synthetic": "objects"}
        return settings | {"split": "test", "on_bad_pair": "stop"} | {"scale": scale}

    keys, path = [], tmp_path / "test.parquet"
    for scale in (0.001, 0.002, 0.001):
        given = at(scale)
        before = tracking.key(given, path)
        if not places.marker(given).exists():
            synthetic.generate(given, places.marker(given))
        assert tracking.key(given, path) == before
        index.build(given, path, 1, lambda line: None)
        assert tracking.key(given, path) == tracking.recorded(path) == before
        keys.append(before)
    assert len(set(keys)) == len(keys)  # the first is of an index that nobody had made
