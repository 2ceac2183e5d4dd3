"""Prepared pictures give the bytes of raw files; what is damaged, foreign or half-written is not taken."""

import json
import multiprocessing
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import square_mask, write_picture
from PIL import Image

from cdfss import CdfssError, configuration
from cdfss.configuration.jobs import Jobs
from cdfss.data import episodes, index, masks, places, resized, resizing, synthetic

SIZE = 33  # no multiple of 8


def built(settings, path, size=SIZE, rows=slice(None), **where):
    """An index as it is read from raw files, and as it is read from what is prepared of its rows."""
    index.build(settings, path / "index.parquet", 2, lambda line: None)
    raw = index.load(path / "index.parquet")
    resizing.prepare(raw, raw.rows.iloc[rows], size, path / "pictures", 2, lambda line: None)
    marker = {"folder": str(path / "pictures"), "index": raw.identity, "image_size": size}
    (path / "marker.json").write_text(json.dumps(marker))
    return raw, index.load(path / "index.parquet", path / "marker.json")


def read(pictures, row, size=SIZE):
    return *pictures.read(row, size), *pictures.read_whole_mask(row, size)


def same(raw, prepared, size=SIZE, rows=None):
    for _, row in (raw.rows if rows is None else rows).iterrows():
        for ours, theirs in zip(read(prepared, row, size), read(raw, row, size), strict=True):
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)
            assert ours.flags.writeable


def without_raw(pictures, monkeypatch):
    """Make sure that nothing is read from raw files any more."""
    monkeypatch.setattr(index, "file_bytes", lambda *_: pytest.fail("a raw file was read"))
    return pictures


@pytest.mark.parametrize("name", ["everyday", "objects", "landcover", "lesions", "lungs"])
def test_every_format_is_read_as_from_raw_files(name, tmp_path, monkeypatch):
    jobs = Jobs(configuration.load("config/demo.yaml"))
    place = jobs.place_of(name) | {"folder": str(tmp_path)}
    synthetic.generate(jobs.raw_settings(name) | {"folder": str(tmp_path)}, places.marker(place))
    split = next(split for data, split in jobs.indexes if data == name)
    few = slice(None, None, 7)
    raw, prepared = built(jobs.index_settings(name, split) | place, tmp_path, 64, few)
    rows = raw.rows.iloc[few]
    expected = [read(raw, row, 64) for _, row in rows.iterrows()]
    without_raw(prepared, monkeypatch)
    for (_, row), theirs in zip(rows.iterrows(), expected, strict=True):
        for ours, of_raw in zip(read(prepared, row, 64), theirs, strict=True):
            assert ours.dtype == of_raw.dtype
            assert np.array_equal(ours, of_raw)


def test_void_of_index_masks_is_kept_at_both_sizes(settings, tmp_path):
    generator = np.random.RandomState(0)
    for number, shape in enumerate([(30, 40), (90, 70), (64, 200)]):
        labels = generator.choice([0, 3, 5, 255], shape).astype(np.uint8)
        labels[: shape[0] // 2] = 3
        write_picture(tmp_path / "JPEGImages" / f"2007_0{number}.jpg", shape[::-1], seed=number)
        write_picture(tmp_path / "SegmentationClassAug" / f"2007_0{number}.png", mask=labels)
    (tmp_path / "splits").mkdir()
    for fold in range(4):
        lines = [f"2007_0{number}__03" for number in range(3)] if fold == 0 else []
        (tmp_path / "splits" / f"fold{fold}.txt").write_text("\n".join(lines) + "\n")
    raw, prepared = built(settings(tmp_path, format="pascal"), tmp_path)
    assert raw.read(raw.rows.iloc[0], SIZE)[2].any()
    same(raw, prepared)


def test_own_pictures_of_16_bits_and_turned_ones_are_read_alike(settings, tmp_path):
    generator = np.random.RandomState(0)
    root, exif = tmp_path / "mine", Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for number in range(4):
        deep = generator.randint(0, 65536, (30, 40)).astype(np.uint16)
        for kind in ("images", "masks"):
            (root / "roof" / kind).mkdir(parents=True, exist_ok=True)
        if number % 2:
            Image.fromarray(deep).save(root / "roof" / "images" / f"{number}.png")
            write_picture(root / "roof" / "masks" / f"{number}.png", mask=square_mask())
            continue
        picture = Image.fromarray(generator.randint(0, 256, (30, 40, 3)).astype(np.uint8))
        picture.save(root / "roof" / "images" / f"{number}.jpg", exif=exif)
        write_picture(root / "roof" / "masks" / f"{number}.png", mask=square_mask((30, 40)).copy())
    raw, prepared = built(settings(root), tmp_path)
    assert set(raw.rows["height"]) == {30, 40}
    same(raw, prepared)


@pytest.mark.parametrize("shape", [(30, 40), (7, 50), (400, 3), (16, 16), (900, 700)])
@pytest.mark.parametrize("void", [False, True])
def test_counts_at_the_own_size_come_back_from_few_bytes(shape, void):
    generator, size = np.random.RandomState(0), 16
    labels = generator.choice([0, 1, 2] if void else [0, 1], shape)
    labels[: shape[0] // 2] = 1
    own = np.stack([masks.pixels_by_position(labels == value, size) for value in (0, 1)])
    content = masks.own_to_bytes(own, shape)
    assert np.array_equal(masks.own_from_bytes(content, shape, size), own)
    assert len(content) < own.nbytes


def test_what_is_not_prepared_and_other_sizes_are_read_raw(settings, folder_data, tmp_path):
    raw, prepared = built(settings(folder_data), tmp_path, rows=slice(3))
    assert len(prepared.resized) == 6
    same(raw, prepared)
    same(raw, prepared, SIZE + 1)


def test_raw_files_may_be_gone_where_pictures_are_prepared(settings, folder_data, tmp_path):
    raw, prepared = built(settings(folder_data), tmp_path, rows=slice(3))
    expected = raw.read(raw.rows.iloc[0], SIZE)
    (folder_data / raw.rows["image"].iloc[0]).unlink()
    (folder_data / raw.rows["mask"].iloc[0]).unlink()
    assert all(map(np.array_equal, prepared.read(raw.rows.iloc[0], SIZE), expected))
    with pytest.raises(CdfssError, match="cannot be read any more"):
        prepared.read(raw.rows.iloc[0], SIZE + 1)


def test_changed_bytes_are_named_with_what_to_do(settings, folder_data, tmp_path):
    raw, prepared = built(settings(folder_data), tmp_path)
    (file,) = (tmp_path / "pictures").glob("*.arrow")
    pixels = prepared.read_image(raw.rows.iloc[0], SIZE).tobytes()
    content = file.read_bytes()
    at = content.index(pixels)
    file.write_bytes(content[:at] + bytes([pixels[0] ^ 1]) + content[at + 1 :])
    damaged = index.load(tmp_path / "index.parquet", tmp_path / "marker.json")
    with pytest.raises(
        CdfssError, match=r"roof/images/0\.jpg in it has another hash.*Delete it.*-R pictures"
    ):
        damaged.read_image(raw.rows.iloc[0], SIZE)
    same(raw, damaged, rows=raw.rows.iloc[1:])


@pytest.mark.parametrize("length", [0, 7, 1000, -1])
def test_half_a_file_is_named(settings, folder_data, tmp_path, length):
    built(settings(folder_data), tmp_path)
    (file,) = (tmp_path / "pictures").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CdfssError, match=f"{file.name}.* is damaged.*Delete it"):
        index.load(tmp_path / "index.parquet", tmp_path / "marker.json")


def test_files_of_another_index_size_or_version_are_not_taken_and_said(
    settings, folder_data, tmp_path, monkeypatch, capsys
):
    raw, _ = built(settings(folder_data), tmp_path)
    for identity, size, what in (("other", SIZE, "index"), (raw.identity, 64, "image size")):
        assert len(resized.Resized(tmp_path / "pictures", identity, size)) == 0
        assert f"is of another {what} than this job reads" in capsys.readouterr().out
    monkeypatch.setattr(resized.provenance, "code", lambda *_: "newer")
    prepared = index.load(tmp_path / "index.parquet", tmp_path / "marker.json")
    said = capsys.readouterr().out
    assert "is of another version of cdfss" in said
    assert "mine: no prepared pictures" in said
    same(raw, prepared)
    # Those are replaced when pictures are prepared anew.
    resizing.prepare(raw, raw.rows, SIZE, tmp_path / "pictures", 1, lambda line: None)
    assert len(list((tmp_path / "pictures").glob("*.arrow"))) == 1
    assert len(resized.Resized(tmp_path / "pictures", raw.identity, SIZE)) == 24


def test_a_marker_of_another_index_is_refused(settings, folder_data, tmp_path):
    built(settings(folder_data), tmp_path)
    marker = json.loads((tmp_path / "marker.json").read_text()) | {"index": "other"}
    (tmp_path / "marker.json").write_text(json.dumps(marker))
    with pytest.raises(CdfssError, match="of other pictures of mine than the index holds"):
        index.load(tmp_path / "index.parquet", tmp_path / "marker.json")
    (tmp_path / "marker.json").write_text("[")
    with pytest.raises(CdfssError, match="damaged"):
        index.load(tmp_path / "index.parquet", tmp_path / "marker.json")


def test_a_second_list_decodes_only_what_is_new_in_it(settings, folder_data, tmp_path, monkeypatch):
    raw, _ = built(settings(folder_data), tmp_path, rows=slice(4))
    decoded, lines, decode = [], [], resizing._decode

    def in_this_process(function, tasks, *_):
        decoded.extend(tasks)
        return map(decode, tasks)

    monkeypatch.setattr(resizing, "in_processes", in_this_process)
    resizing.prepare(raw, raw.rows.iloc[2:6], SIZE, tmp_path / "pictures", 1, lines.append)
    assert [(kind, row["image"]) for _, kind, row, _ in decoded] == [
        (kind, raw.rows["image"].iloc[number]) for number in (4, 5) for kind in ("image", "mask")
    ]
    resizing.prepare(raw, raw.rows.iloc[:6], SIZE, tmp_path / "pictures", 1, lines.append)
    assert len(decoded) == 4
    assert "are prepared already" in lines[-1]
    same(raw, index.load(tmp_path / "index.parquet", tmp_path / "marker.json"))


def test_the_job_of_a_list_prepares_what_it_shows_and_no_more(settings, folder_data, tmp_path):
    raw, _ = built(settings(folder_data), tmp_path, rows=slice(0))
    listed = episodes.sample(raw, split="test", shot=1, seed=0, number=2)
    episodes.save(listed, tmp_path / "list.parquet", {"index": raw.identity})
    shown = {int(row) for e in listed.itertuples() for row in (e.query_row, *e.support_rows)}
    given = {"image_size": SIZE}, tmp_path / "index.parquet", tmp_path / "list.parquet", tmp_path / "some"
    resizing.run(*given, tmp_path / "list.json", 1)
    prepared = index.load(tmp_path / "index.parquet", tmp_path / "list.json")
    assert len(prepared.resized) == 2 * len(shown) < 24
    same(raw, prepared)
    before = (tmp_path / "list.json").read_bytes()
    resizing.run(*given, tmp_path / "list.json", 1)
    assert (tmp_path / "list.json").read_bytes() == before  # or all that reads it would run again
    resizing.run(given[0], given[1], None, given[3], tmp_path / "all.json", 1)
    assert len(index.load(tmp_path / "index.parquet", tmp_path / "all.json").resized) == 24


def test_disk_use_is_said_and_too_much_is_refused_before_anything_is_decoded(
    settings, folder_data, tmp_path, monkeypatch
):
    raw, _ = built(settings(folder_data), tmp_path, rows=slice(0))
    monkeypatch.setattr(resizing, "free_bytes", lambda path: 10_000)
    monkeypatch.setattr(resizing, "in_processes", lambda *_: pytest.fail("something was decoded"))
    lines = []
    with pytest.raises(CdfssError, match=r"mine: pictures at 33 px need about .* Make room there"):
        resizing.prepare(raw, raw.rows, SIZE, tmp_path / "more", 1, lines.append)
    assert "12 pictures and 12 masks at 33 px" in lines[0]
    assert list((tmp_path / "more").glob("*.arrow")) == []


def test_the_size_that_is_said_is_about_the_size_that_is_taken(settings, folder_data, tmp_path):
    raw, _ = built(settings(folder_data), tmp_path, 200, slice(0))
    resizing.prepare(raw, raw.rows, 200, tmp_path / "pictures", 1, lambda line: None)
    (file,) = (tmp_path / "pictures").glob("*.arrow")
    rows = raw.rows.to_dict("records")
    said = sum(resizing._bytes(kind, row, 200) for row in rows for kind in ("image", "mask"))
    assert 0.9 < file.stat().st_size / said < 1.1


WRITING = """
import sys, time
from cdfss.data import index, resizing
decode = resizing._decode
def slow(task):
    time.sleep(0.2)
    print("decoded", flush=True)
    return decode(task)
resizing._decode, resizing.BATCH = slow, 1
loaded = index.load(sys.argv[1])
resizing.prepare(loaded, loaded.rows, 33, sys.argv[2], 1)
"""


def test_a_killed_job_leaves_nothing_that_is_taken_and_the_next_clears_it(settings, folder_data, tmp_path):
    raw, _ = built(settings(folder_data), tmp_path, rows=slice(0))
    folder = tmp_path / "pictures"
    command = [sys.executable, "-c", WRITING, tmp_path / "index.parquet", folder]
    job = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while "decoded" not in job.stdout.readline():
        assert job.poll() is None
    time.sleep(0.5)
    job.send_signal(signal.SIGKILL)
    job.wait()
    job.stdout.close()
    assert len(list(folder.glob(".*.partial"))) == 1
    assert len(resized.Resized(folder, raw.identity, SIZE)) == 0
    resizing.prepare(raw, raw.rows, SIZE, folder, 1, lambda line: None)
    assert list(folder.glob(".*.partial")) == []
    same(raw, index.load(tmp_path / "index.parquet", tmp_path / "marker.json"))


def test_a_second_job_waits_for_the_first_and_finds_its_work_done(settings, folder_data, tmp_path):
    raw, _ = built(settings(folder_data), tmp_path, rows=slice(0))
    command = [sys.executable, "-c", WRITING, tmp_path / "index.parquet", tmp_path / "pictures"]
    job = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    while "decoded" not in job.stdout.readline():
        assert job.poll() is None
    lines = []
    resizing.prepare(raw, raw.rows, SIZE, tmp_path / "pictures", 1, lines.append)
    job.communicate()
    assert "waiting for it" in lines[0]
    assert "are prepared already" in lines[1]
    assert len(list((tmp_path / "pictures").glob("*.arrow"))) == 1


def _digest(pictures, row, result):
    result.put(sum(int(array.sum()) for array in read(pictures, row)))


def test_processes_that_are_forked_read_what_was_opened_before(
    settings, folder_data, tmp_path, monkeypatch
):
    _, prepared = built(settings(folder_data), tmp_path)
    without_raw(prepared, monkeypatch)
    row, fork = prepared.rows.iloc[1], multiprocessing.get_context("fork")
    expected, results = sum(int(array.sum()) for array in read(prepared, row)), fork.Queue()
    children = [fork.Process(target=_digest, args=(prepared, row, results)) for _ in range(3)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [expected] * 3
    for child in children:
        child.join()


def test_training_loads_prepared_pictures_in_worker_processes(settings, folder_data, tmp_path):
    from torch.utils.data import DataLoader

    from cdfss.methods.training import Pairs

    raw, prepared = built(settings(folder_data), tmp_path)
    pairs = np.array([[0, 1], [2, 3], [7, 8]])
    of_each = [
        DataLoader(Pairs(pictures, pairs, SIZE), 2, num_workers=2, multiprocessing_context="fork")
        for pictures in (raw, prepared)
    ]
    for ours, theirs in zip(*of_each, strict=True):
        assert all(bool((a == b).all()) for a, b in zip(ours, theirs, strict=True))
