"""What data holds beside what is published of it."""

from pathlib import Path

import pytest
from conftest import square_mask, write_picture

from cdfss.data import index
from cdfss.data.readers import READERS
from cdfss.reports import page, prepared

DOCS = Path(__file__).parent.parent / "docs" / "explanation" / "data.md"


def test_the_docs_have_the_published_counts():
    assert prepared.as_markdown() in DOCS.read_text("utf-8")


def test_every_published_count_has_a_source_and_a_number():
    assert set(prepared.published()) == set(READERS) - {"folder"}
    for counts in prepared.published().values():
        for count in counts:
            assert count["what"], count
            assert count["source"], count
            assert set(count) - {"what", "source", "split"} <= set(prepared.UNITS)
            assert any(unit in count for unit in prepared.UNITS), count


def lungs(root, pairs, alone=0):
    for number in range(pairs + alone):
        write_picture(root / "CXR_png" / f"CHNCXR_{number:04d}_0.png", seed=number)
        if number < pairs:
            write_picture(root / "masks" / f"CHNCXR_{number:04d}_0_mask.png", mask=square_mask())


def of_run(settings, root, **more):
    path = root.with_name(f"{root.name}.parquet")
    index.build(settings(root, **more) | {"split": "test"}, path, 1, lambda line: None)
    return path, prepared.of_run([path], {"mine": "Lungs"})[0]


def test_our_counts_stand_beside_published_ones_with_a_reason(settings, tmp_path):
    lungs(tmp_path / "x", 3, alone=2)
    path, found = of_run(settings, tmp_path / "x", format="chestxray")
    assert found["heading"] == "Lungs, split test"
    assert found["digest"] == index.load_prepared(path)[0].digest
    assert found["columns"] == ["raw files", "pictures", "entries"]
    assert [line["cells"] for line in found["lines"][:2]] == [["5", "3", "3"], ["800", "", "704"]]
    notes = " ".join(found["notes"])
    assert "Pictures without a mask, which are left out: 2." in notes
    assert "Fewer raw files and entries than in any source" in notes  # nobody published their pictures


def test_equal_counts_and_others_are_told_apart(settings, tmp_path, monkeypatch):
    lungs(tmp_path / "x", 3)
    known = {
        "chestxray": [
            {"what": "w", "source": "A", "entries": 3},
            {"what": "w", "source": "B", "entries": 2},
        ]
    }
    monkeypatch.setattr(prepared, "published", lambda: known)
    assert "As many entries as in: A." in of_run(settings, tmp_path / "x", format="chestxray")[1]["notes"]
    known["chestxray"][0]["entries"] = 4
    assert of_run(settings, tmp_path / "x", format="chestxray")[1]["notes"] == [
        "As many entries are in none of the sources."
    ]
    known["chestxray"] = [c | {"split": "val"} for c in known["chestxray"]]
    assert of_run(settings, tmp_path / "x", format="chestxray")[1]["notes"] == [
        "Nothing is published of this data set."
    ]


def test_data_that_is_drawn_is_not_compared(settings, tmp_path):
    lungs(tmp_path / "x", 3)
    path = tmp_path / "index.parquet"
    given = settings(tmp_path / "x", format="chestxray") | {"synthetic": "lungs"}
    index.build(given, path, 1, lambda line: None)
    notes = prepared.of_run([path], {})[0]["notes"]
    assert len(notes) == 1
    assert "drawn by this program" in notes[0]


def test_left_out_pairs_and_pieces_are_reasons(settings, tmp_path):
    lungs(tmp_path / "x", 3)
    (tmp_path / "x" / "masks" / "CHNCXR_0000_0_mask.png").write_text("no picture")
    _, found = of_run(settings, tmp_path / "x", format="chestxray", on_bad_pair="skip")
    assert "(on_bad_pair: skip): 1." in " ".join(found["notes"])
    pieces = {"tiles": 8, "pieces_kept": 112, "pieces_of_one_colour": 71, "pieces_with_a_rare_colour": 105}
    note = prepared._notes({}, [], {"format": "deepglobe"} | pieces)[0]
    for number in ("8 tiles", "112", "71", "105", "4.8 %"):
        assert number in note


@pytest.mark.parametrize("own", [False, True])
def test_the_page_shows_data_only_where_it_is_given(settings, tmp_path, own):
    from test_page import SETTINGS

    lungs(tmp_path / "x", 3)
    path, found = of_run(settings, tmp_path / "x", format="chestxray")
    page.write([], [], [], SETTINGS, tmp_path / "index.html", [path] if own else [])
    text = (tmp_path / "index.html").read_text()
    assert (found["digest"] in text) == own
    assert ("visinf/INSID3" in text) == own
    assert ('href="#data"' in text) == own
