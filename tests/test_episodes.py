from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import episodes as published

from cdfss import CdfssError
from cdfss.data import episodes
from cdfss.data.index import Index


def index_of(paths, classes, format="folder", name="mine", split="test"):
    rows = pd.DataFrame({"image": paths, "class_id": classes, "split": split})
    rows["class_name"] = [f"class {c}" for c in classes]
    return Index(name, format, Path("."), rows)


def class_of(domain, path):
    if domain == "lung":
        return 0
    return int(path.split("/")[-4 if domain == "deepglobe" else -2]) - 1


@pytest.mark.parametrize("domain", ["deepglobe", "isic", "lung"])
@pytest.mark.parametrize("shot", [1, 5])
def test_lists_equal_the_published_ones(domain, shot):
    paths = published()["trees"][domain]
    theirs = published()["episodes"][f"{domain}-test-{shot}shot"]
    index = index_of(paths, [class_of(domain, path) for path in paths])
    ours = episodes.sample(index, split="test", shot=shot, seed=0, number=600)
    assert len(ours) == theirs["length"]
    for mine, theirs_ in zip(ours.itertuples(), theirs["first"]):
        assert mine.query == theirs_["query"]
        assert mine.supports == theirs_["supports"]
        assert mine.class_id == theirs_["class"]


@pytest.mark.parametrize(("split", "first"), [("val", 520), ("test", 760)])
@pytest.mark.parametrize("shot", [1, 5])
def test_fss_lists_equal_the_published_ones(shot, split, first):
    theirs = published()["episodes"][f"fss-{split}-{shot}shot"]
    names = dict.fromkeys(e["query"].rsplit("/", 1)[0] for e in theirs["first"])
    paths = [path for name in names for path in sorted(f"{name}/{n}.jpg" for n in range(1, 11))]
    classes = [first + i // 10 for i in range(len(paths))]
    index = index_of(paths, classes, "fss1000", split=split)
    ours = episodes.sample(index, split=split, shot=shot, seed=0, number=len(paths))
    for mine, theirs_ in zip(ours.itertuples(), theirs["first"]):
        assert (mine.query, mine.supports) == (theirs_["query"], theirs_["supports"])
        assert mine.class_id == theirs_["class"]


def test_a_short_fss_list_is_a_sample_of_the_whole_one():
    index = index_of(
        [f"{c}/{n}.jpg" for c in range(4) for n in range(10)], [i // 10 for i in range(40)], "fss1000"
    )
    whole = episodes.sample(index, split="test", shot=1, seed=3, number=40)
    short = episodes.sample(index, split="test", shot=1, seed=3, number=8)
    assert set(short["class_id"]) == {0, 1, 2, 3}
    joined = short.merge(whole, on="episode", suffixes=("", "_whole"))
    assert len(joined) == 8
    assert (joined["support_rows"] == joined["support_rows_whole"]).all()
    with pytest.raises(CdfssError, match="has 40 images"):
        episodes.sample(index, split="test", shot=1, seed=3, number=41)


@given(
    sizes=st.lists(st.integers(5, 9), min_size=1, max_size=4),
    shot=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    shards=st.integers(1, 7),
)
def test_supports_differ_from_the_query_and_shards_make_the_whole(sizes, shot, seed, shards):
    classes = [c for c, size in enumerate(sizes) for _ in range(size)]
    index = index_of([f"{i}.jpg" for i in range(len(classes))], classes)
    drawn = episodes.sample(index, split="test", shot=shot, seed=seed, number=20)
    again = episodes.sample(index, split="test", shot=shot, seed=seed, number=20)
    pd.testing.assert_frame_equal(drawn, again)
    for episode in drawn.itertuples():
        assert episode.query_row not in episode.support_rows
        assert {classes[row] for row in [episode.query_row, *episode.support_rows]} == {episode.class_id}
    parts = [episodes.shard(drawn, number, shards) for number in range(shards)]
    pd.testing.assert_frame_equal(pd.concat(parts), drawn)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_classes_smaller_than_the_shots_are_named():
    index = index_of([f"{i}.jpg" for i in range(9)], [0] * 6 + [1] * 3)
    with pytest.raises(CdfssError) as error:
        episodes.sample(index, split="test", shot=5, seed=0, number=4)
    text = str(error.value)
    assert "5-shot episodes need at least 5 pictures" in text
    assert "class 1 (3)" in text
    assert "shots up to 3" in text


def test_an_empty_split_is_named_with_those_that_are_there():
    with pytest.raises(CdfssError, match="split 'val' is empty; there are test"):
        episodes.sample(index_of(["a", "b"], [0, 0]), split="val", shot=1, seed=0, number=1)


def test_lists_survive_the_file(tmp_path):
    drawn = episodes.sample(index_of(["a", "b", "c"], [0, 0, 0]), split="test", shot=2, seed=0, number=3)
    episodes.save(drawn, tmp_path / "e.parquet", {"shot": 2})
    loaded = episodes.load(tmp_path / "e.parquet")
    assert loaded["query"].tolist() == drawn["query"].tolist()
    assert [list(s) for s in loaded["support_rows"]] == drawn["support_rows"].tolist()
