"""The trust report: leaving supports out, confidence, disagreement, what to label next, its page."""

import json
import re

import made_network
import numpy as np
import pytest
import torch

from cdfss import CdfssError
from cdfss.backbones.memory import EachPicture
from cdfss.methods import ridge
from cdfss.reports.statistics import LEAST_EPISODES
from cdfss.segmentation import trust
from cdfss.segmentation.supports import Support, Supports

SIZE = 64
RIDGE, PROTOTYPES, PROPAGATION = trust.CANDIDATES


def of_discs(number, **how):
    """Supports of one class."""
    pictures, masks = made_network.discs(number, size=SIZE, **how)
    return [Support(f"p{place}", *both) for place, both in enumerate(zip(pictures, masks))]


def as_supports(**classes):
    values = {label: place for place, label in enumerate(classes, 1)}
    return Supports(classes, values, {label: (40 * v, 200, 90) for label, v in values.items()}, False)


def with_mask(support, mask):
    return Support(support.name, support.picture, mask)


@pytest.fixture
def given():
    return made_network.given(SIZE)


@pytest.fixture
def reported(given, monkeypatch):
    """A report of supports with ridge, on the tiny network."""
    monkeypatch.setattr(trust, "_given", lambda *_: given)
    settings = ridge.Settings().model_dump(mode="json")
    how = {"method": "ridge", "settings": settings, "backbone": "tiny", "size": SIZE, "seed": 0}

    def make(supports, queries=(), **more):
        return trust.report(supports, how, queries, **more)

    return make


def test_trivial_predictors_are_told_what_their_definition_gives(given):
    of = of_discs(4)
    rows = trust.Trials(as_supports(disc=of), given, [RIDGE]).rows
    masks = np.stack([one.mask for one in of])
    for place, one in enumerate(of):
        others = np.delete(masks, place, 0).mean(0) >= 0.5
        copied = (others & one.mask).sum() / (others | one.mask).sum()
        found = {row.method: row.iou for row in rows if row.support == one.name}
        assert found["foreground"] == pytest.approx(one.mask.mean())
        assert found["copy"] == pytest.approx(copied)
        assert found["ridge"] > 0.6
    assert [row.support for row in rows if row.method == "ridge"] == ["p0", "p1", "p2", "p3"]


@pytest.mark.parametrize("candidate", trust.CANDIDATES, ids=lambda c: c.title)
def test_a_left_out_mask_has_no_part_in_its_prediction(given, candidate):
    of = of_discs(3)
    lying = [with_mask(of[0], ~of[0].mask), *of[1:]]
    true, other = (trust.predicted(candidate, given, trust.folds(one)[0]) for one in (of, lying))
    np.testing.assert_array_equal(true, other)


def test_a_wrong_mask_comes_first_and_is_suspected(given):
    of = of_discs(5)
    honest = trust.Trials(as_supports(disc=of), given, [RIDGE])
    assert not any(one.suspicious for one in honest.disagreement)
    planted = [*of[:2], with_mask(of[2], ~of[2].mask), *of[3:]]
    found = trust.Trials(as_supports(disc=planted), given, [RIDGE]).disagreement
    assert found[0].support == "p2"
    assert found[0].suspicious
    assert [one.suspicious for one in found[1:]] == [False] * 4


def test_of_two_supports_none_is_accused(given):
    one, other = of_discs(2)
    tried = trust.Trials(as_supports(disc=[one, with_mask(other, ~other.mask)]), given, [RIDGE])
    assert not any(one.suspicious for one in tried.disagreement)
    assert any("either may be the wrong one" in remark for remark in tried.remarks)


def test_a_single_support_is_tried_on_a_changed_copy_and_called_weak(reported):
    told = reported(as_supports(disc=of_discs(1)))
    assert any("weak evidence" in remark for remark in told.remarks)
    assert "changed copies" in told.why
    assert told.disagreement == ()
    assert [row.support for row in told.loo if row.method == "ridge"] == ["p0"]


def test_a_changed_copy_keeps_mask_and_picture_together():
    (one,) = of_discs(1, seed=3)
    copy = trust.changed(one)
    assert copy.picture.shape == one.picture.shape
    assert not np.array_equal(copy.picture, one.picture)
    red = copy.picture[..., 0].astype(int) - copy.picture[..., 2]  # discs are red on grey
    assert (red[copy.mask] > 60).mean() > 0.95
    assert (red[~copy.mask] > 60).mean() < 0.05


def test_tiles_of_a_picture_are_left_out_together():
    names = ("a at 0, 0", "a at 48, 0", "b", "c at 0, 0")
    of = [Support(name, one.picture, one.mask) for name, one in zip(names, of_discs(4))]
    left = [[one.name for one in fold.left] for fold in trust.folds(of)]
    assert left == [["a at 0, 0", "a at 48, 0"], ["b"], ["c at 0, 0"]]


def test_many_supports_are_left_out_in_parts_each_once_and_never_all_that_show_the_class():
    of = of_discs(23)
    empty = np.zeros((SIZE, SIZE), bool)
    of = [one if place in (0, 10) else with_mask(one, empty) for place, one in enumerate(of)]
    parts = trust.folds(of)
    assert len(parts) == trust.FOLDS
    assert sorted(one.name for fold in parts for one in fold.left) == sorted(one.name for one in of)
    for fold in parts:
        assert any(one.mask.any() for one in fold.learnt)
        assert not {one.name for one in fold.left} & {one.name for one in fold.learnt}


def test_a_picture_without_the_class_has_no_iou_and_no_part_in_the_mean(given):
    of = of_discs(4)
    of[3] = with_mask(of[3], np.zeros((SIZE, SIZE), bool))
    tried = trust.Trials(as_supports(disc=of), given, [RIDGE])
    assert [row.iou is None for row in tried.rows if row.method == "ridge"] == [False, False, False, True]
    assert tried.scores[0].number == 3
    assert "p3" not in [one.support for one in tried.disagreement]


def test_unknown_pixels_do_not_count():
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    unknown = np.zeros((4, 4), bool)
    unknown[3] = True
    found = np.zeros((4, 4))
    found[[0, 3]] = 1  # half of the mask, and a row of which nobody knows
    assert trust.iou_of([Support("p", None, mask, unknown)], found[None]) == 0.5
    assert trust.iou_of([Support("p", None, mask)], found[None]) == pytest.approx(1 / 3)


def test_tiles_are_counted_as_one_picture():
    mask = np.ones((2, 2), bool)
    tiles = [Support("p at 0, 0", None, mask), Support("p at 2, 0", None, mask)]
    assert trust.iou_of(tiles, np.stack([mask, ~mask]).astype(float)) == 0.5


def test_a_balanced_error_counts_both_labels_alike_and_nothing_unknown():
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    found = np.zeros((4, 4))
    found[3] = 1  # misses the only pixel of the mask, and takes 4 of 15 others
    assert trust.balanced_error([Support("p", None, mask)], [found]) == pytest.approx((1 + 4 / 15) / 2)
    unknown = np.zeros((4, 4), bool)
    unknown[3] = True
    assert trust.balanced_error([Support("p", None, mask, unknown)], [found]) == 0.5


@pytest.fixture
def scripted(given, monkeypatch):
    """Trials in which each candidate, by its title, finds that share of every mask."""

    def make(number=4, **shares):
        def found(candidate, given, fold):
            share = shares.get(candidate.title, 0.0)
            rows = [np.cumsum(one.mask.ravel()).reshape(one.mask.shape) for one in fold.left]
            kept = [(r <= share * r.max()) & one.mask for r, one in zip(rows, fold.left)]
            return np.stack(kept).astype(np.float32)

        monkeypatch.setattr(trust, "predicted", found)
        return trust.Trials(as_supports(disc=of_discs(number)), given, trust.CANDIDATES)

    return make


def test_the_best_by_leave_one_out_is_taken_and_named(scripted):
    tried = scripted(ridge=0.5, prototypes=0.8, propagation=0.6)
    assert tried.best is PROTOTYPES
    assert tried.why.startswith("Take prototypes: on left-out supports its mean IoU is 0.799")
    assert "ridge 0.499, propagation 0.600" in tried.why


def test_a_tie_goes_to_the_first(scripted):
    assert scripted(ridge=0.79, prototypes=0.5, propagation=0.8).best is RIDGE
    assert scripted(ridge=0.7, prototypes=0.79, propagation=0.8).best is PROTOTYPES
    assert scripted(ridge=0.7, prototypes=0.5, propagation=0.8).best is PROPAGATION


def test_it_is_said_when_a_predictor_that_looks_at_nothing_is_as_good(scripted):
    assert "no sign that anything of use" in scripted(ridge=0.5, copy=0.6).why
    assert "no sign that anything of use" not in scripted(ridge=0.7, copy=0.6).why


def test_an_interval_is_stated_from_as_many_numbers_as_anywhere_else(scripted):
    few = scripted(LEAST_EPISODES - 1, ridge=0.7).scores[0]
    assert few.interval is None
    assert f"fewer than {LEAST_EPISODES}" in few.why_none
    enough = scripted(LEAST_EPISODES, ridge=0.7).scores[0]
    low, high = enough.interval
    assert 0 <= low <= enough.mean <= high <= 1


def test_hsnet_is_a_candidate_where_there_is_a_checkpoint(monkeypatch, given, scripted):
    monkeypatch.setattr(trust, "_given", lambda *_: given)
    scripted(ridge=0.5, **{"hsnet with modules": 0.9})  # `predicted` stays as scripted
    supports = as_supports(disc=of_discs(3))
    how = {"backbone": "tiny", "size": SIZE, "device": "cpu"}
    assert trust.choose(supports, **how)[0] is RIDGE
    best, why = trust.choose(supports, checkpoint="model.pt", **how)
    assert best.method == "hsnet"
    assert best.settings == {"modules": ["apm_m", "acpa"]}
    assert "hsnet with modules" in why


def test_supports_of_which_nothing_can_be_learnt_end_in_words(given):
    of = [with_mask(one, np.ones((SIZE, SIZE), bool)) for one in of_discs(3)]
    with pytest.raises(CdfssError, match="Add supports whose masks hold both"):
        _ = trust.Trials(as_supports(disc=of), given, [RIDGE]).best


def test_confidence_is_what_stays_of_a_mask_between_two_thresholds():
    values = np.zeros((10, 10))
    assert trust.confidence(values) is None
    values[:4] = 0.9
    assert trust.confidence(values) == 1.0
    values[4:8] = 0.5
    assert trust.confidence(values) == 0.5
    values[:4] = 0.6
    assert trust.confidence(values) == 0.0


def test_what_is_labelled_next_stands_for_pictures_that_are_unlike_the_labelled():
    here, there, far = np.eye(3)
    labelled = here[None]
    queries = np.stack([here, there, there + 0.1 * far, there - 0.1 * here, far])
    chosen = trust.most_typical(labelled, queries, 3)
    assert chosen[0] in (1, 2, 3)
    assert chosen[1] == 4
    assert len(set(trust.most_typical(labelled, queries, 10))) == 5


def test_the_first_to_label_is_the_one_that_serves_most():
    generator = np.random.RandomState(0)
    labelled, queries = generator.normal(size=(2, 5)), generator.normal(size=(6, 5))
    both = np.concatenate([labelled, queries])
    both = both - both.mean(0)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    served = [
        sum(max(both[q] @ both[other] for other in (0, 1, chosen)) for q in range(2, 8))
        for chosen in range(2, 8)
    ]
    assert trust.most_typical(labelled, queries, 1) == [int(np.argmax(served))]


def test_a_report_says_the_same_on_the_page_and_as_json(reported):
    pictures, _ = made_network.discs(3, size=80, seed=5)
    pictures[2] = 110  # nothing to be found
    names = ("one", "<script>two", "three")
    told = reported(as_supports(disc=of_discs(3)), zip(names, pictures))
    read = json.loads(told.to_json())
    assert list(read) == [
        "version",
        "method",
        "best",
        "why",
        "scores",
        "leave_one_out",
        "confidence",
        "disagreement",
        "label_next",
        "remarks",
    ]
    assert [one["query"] for one in read["confidence"]] == list(names)
    assert sorted(read["label_next"]) == sorted(names)
    assert {(one["method"], one["support"]) for one in read["leave_one_out"]} == {
        (method, f"p{place}")
        for method in ("ridge", "prototypes", "propagation", "foreground", "copy")
        for place in range(3)
    }
    page = told.to_html()
    assert "<script" not in page
    assert "&lt;script&gt;two" in page
    assert read["why"] in page.replace("&#39;", "'")
    assert all(f"p{place}" in page for place in range(3))
    sources = re.findall(r'src="([^"]{20})', page)
    assert len(sources) == 3 + 3
    assert all(s.startswith("data:image/jpeg;") for s in sources)
    assert "http" not in page


def test_a_page_of_several_classes_names_each(reported):
    first, second = of_discs(3), of_discs(3, seed=2, colour=(40, 80, 220))
    told = reported(as_supports(red=first, blue=second), [("q", first[0].picture)])
    assert set(told.confidence[0].classes) == {"red", "blue"}
    page = told.to_html()
    assert "rgb(40,200,90)" in page
    assert "<h3>red</h3>" in page
    assert "<h3>blue</h3>" in page


def test_a_query_is_judged_by_the_prediction_that_is_handed_over(reported):
    shown = []

    def predict(picture):
        shown.append(picture.shape)
        return np.stack([np.linspace(0, 1, picture[..., 0].size).reshape(picture.shape[:2])])

    told = reported(
        as_supports(disc=of_discs(2)), [("large", np.zeros((30, 90, 3), np.uint8))], predict=predict
    )
    assert shown == [(30, 90, 3)]
    assert told.confidence[0].value == pytest.approx(3 / 7, abs=0.01)


def test_a_network_sees_each_picture_once_whatever_its_company():
    seen = []

    def compute(images):
        seen.append(len(images))
        return [images.mean(1, keepdim=True), images[..., ::2, ::2]]

    memory, images = EachPicture(), torch.rand(4, 3, 8, 8)
    for places in ([0, 1, 2], [1, 2, 3], [3, 0], [2]):
        for found, wanted in zip(memory.maps("w", images[places], compute), compute(images[places])):
            assert torch.equal(found, wanted)
    assert [number for number in seen if number == 1] == [1] * 5  # four, and the last `compute` here
    memory.maps("other weights", images[:1], compute)
    assert seen[-1] == 1
    assert len(seen) == 4 + 4 + 1


def test_what_a_memory_keeps_is_bounded_and_nobody_writes_into_it(monkeypatch):
    monkeypatch.setattr(EachPicture, "BYTES", 3 * 4 * 4)
    memory, seen = EachPicture(), []
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)

    def compute(of):
        seen.append(float(of.flatten()[0]))
        return [of.clone()]

    memory.maps("w", images, compute)
    memory.maps("w", images[3:], compute)[0].zero_()
    assert memory.maps("w", images[3:], compute)[0].unique().tolist() == [3.0]
    assert seen == [0, 1, 2, 3]
    memory.maps("w", images[:1], compute)
    assert seen == [0, 1, 2, 3, 0]


@pytest.mark.parametrize(("method", "more"), [("hsnet", ["hsnet", "hsnet with modules"]), ("patnet", [])])
def test_a_checkpoint_is_shown_only_to_methods_that_can_read_it(method, more, given, monkeypatch):
    tried = []
    monkeypatch.setattr(trust, "_given", lambda *_: given)
    monkeypatch.setattr(trust, "predicted", lambda candidate, *_: tried.append(candidate.title))
    how = {"method": method, "settings": {"modules": ["dac"]}, "backbone": "tiny", "size": SIZE, "seed": 0}
    how["checkpoint"] = {"path": "model.pt"}
    with pytest.raises(CdfssError):
        trust.report(as_supports(disc=of_discs(2)), how, predict=lambda picture: None)
    own = ["ridge", "prototypes", "propagation", *more, f"{method}, as fitted", "foreground", "copy"]
    assert list(dict.fromkeys(tried)) == own


def test_what_was_fitted_is_compared_too(reported, given, monkeypatch):
    settings = ridge.Settings(own=0.9).model_dump(mode="json")
    how = {"method": "ridge", "settings": settings, "backbone": "tiny", "size": SIZE, "seed": 0}
    told = trust.report(as_supports(disc=of_discs(2)), how, candidates=[PROTOTYPES])
    assert told.method == "ridge, as fitted"
    assert {one.method for one in told.scores} == {"prototypes", "ridge, as fitted", "foreground", "copy"}
