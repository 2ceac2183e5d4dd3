import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import numbers

from cdfss.data import metrics


def test_counts_and_means_equal_the_published_ones():
    theirs = numbers("metrics")
    shape = tuple(theirs["shape"])

    def masks(name):
        return np.unpackbits(theirs[name])[: np.prod(shape)].reshape(shape)

    intersection, union = metrics.counts(masks("prediction"), masks("ground_truth"), masks("ignore"))
    assert (intersection == theirs["intersection"]).all()
    assert (union == theirs["union"]).all()
    ours = 100 * metrics.mean_iou(intersection, union, theirs["class_id"])
    assert ours == pytest.approx(float(theirs["miou_present_classes"]), abs=1e-4)
    assert 100 * metrics.fb_iou(intersection, union) == pytest.approx(float(theirs["fb_iou"]), abs=1e-4)


def test_a_small_case_counted_by_hand():
    prediction = np.array([[1, 1, 0], [0, 0, 1]])
    truth = np.array([[1, 0, 0], [0, 1, 1]])
    void = np.array([[0, 0, 0], [0, 0, 1]], bool)
    intersection, union = metrics.counts(prediction, truth, void)
    assert intersection.tolist() == [2, 1]
    assert union.tolist() == [4, 3]


def test_miou_sums_over_a_class_before_dividing():
    intersection, union = np.array([[0, 1], [0, 8], [0, 5]]), np.array([[0, 10], [0, 10], [0, 10]])
    assert metrics.class_iou(intersection, union, [0, 0, 7]) == {0: 0.45, 7: 0.5}
    assert metrics.mean_iou(intersection, union, [0, 0, 7]) == pytest.approx(0.475)


@given(st.integers(0, 2**16))
def test_counts_are_symmetric_bounded_and_add_up(seed):
    generator = np.random.RandomState(seed)
    prediction, truth, void = generator.rand(3, 4, 9, 7) < 0.4
    intersection, union = metrics.counts(prediction, truth, void)
    swapped = metrics.counts(truth, prediction, void)
    assert (intersection == swapped[0]).all()
    assert (union == swapped[1]).all()
    assert (intersection <= union).all()
    assert (intersection.sum(-1) + union.sum(-1) == 2 * (~void).sum((-2, -1))).all()
    class_id = np.array([0, 1, 0, 1])
    whole = metrics.class_iou(intersection, union, class_id)
    parts = (
        metrics.counts(prediction[:2], truth[:2], void[:2]),
        metrics.counts(prediction[2:], truth[2:], void[2:]),
    )
    joined = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    assert metrics.class_iou(*joined, class_id) == whole


def test_a_batch_wise_metric_is_another_quantity():
    """Why figures of IFA and its followers are not comparable: same predictions, both metrics."""
    generator = np.random.RandomState(0)
    class_id = np.arange(96) % 6  # the benchmark's order: class = episode mod classes
    union = (
        generator.randint(900, 1100, (96, 2))
        * np.array([10, 1])
        * np.array([1, 3, 9, 27, 81, 243])[class_id].reshape(-1, 1)
    )
    quality = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9])[class_id]
    intersection = np.stack([union[:, 0] * 0.9, union[:, 1] * quality], 1).astype(int)
    ours = metrics.mean_iou(intersection, union, class_id)
    assert ours == pytest.approx(0.4, abs=0.01)
    # Batches of a multiple of 6 all begin with class 0: no classes are left, FB-IoU over all pixels.
    pooled = metrics.fb_iou(intersection, union)
    for batch in (24, 48, 96):
        assert metrics.batchwise_miou(intersection, union, class_id, batch) == pytest.approx(pooled)
    assert pooled > ours + 0.3
    # It changes with the batch size, which a metric must not.
    assert abs(metrics.batchwise_miou(intersection, union, class_id, 2) - pooled) > 0.05


def test_the_batch_wise_score_counted_by_hand():
    intersection = np.array([[8, 1], [6, 2], [4, 3], [2, 4], [5, 5]])
    union = np.array([[10, 4], [10, 4], [8, 6], [8, 8], [5, 5]])
    class_id = [0, 1, 2, 1, 0]
    # Batches of two: 0 and 1 count for class 0, 2 and 3 for class 2, the last alone for class 0.
    expected = np.mean([25 / 41, (1 + 2 + 5) / (4 + 4 + 5), (3 + 4) / (6 + 8)])
    assert metrics.batchwise_miou(intersection, union, class_id, 2) == pytest.approx(expected)
    # A data set of one class: without background, as the benchmark counts.
    assert metrics.batchwise_miou(intersection, union, [3] * 5, 2) == pytest.approx(15 / 27)
    # Its mean leaves out what never occurs.
    union[:4, 1], intersection[:4, 1] = 0, 0
    assert metrics.batchwise_miou(intersection[:4], union[:4], class_id[:4], 2) == pytest.approx(20 / 36)


def test_counts_at_own_size_are_those_of_the_enlarged_prediction_by_hand():
    # A mask of 2 x 4 pixels, a prediction of 2 x 2: each position is a row of two pixels.
    own = np.array([[[2, 1], [0, 1]], [[0, 1], [2, 0]]])  # background, foreground; one pixel is void
    intersection, union = metrics.counts_at_own_size([[0, 1], [1, 0]], own)
    assert intersection.tolist() == [3, 3]  # truth 0 0 | 0 1 / 1 1 | 0 -, found 0 0 | 1 1 / 1 1 | 0 -
    assert union.tolist() == [4, 4]
