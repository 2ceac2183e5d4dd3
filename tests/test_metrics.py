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


def batch_wise_iou(intersection, union, class_id, batch):
    """mIoU as IFA scores: a whole batch is counted for the class of its first item."""
    first = np.repeat(class_id[::batch], batch)[: len(class_id)]
    return metrics.mean_iou(intersection, union, first)


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
    # Batches of a multiple of 6 all begin with class 0: no classes are left, one IoU over all pixels.
    pooled = intersection[:, 1].sum() / union[:, 1].sum()
    assert batch_wise_iou(intersection, union, class_id, 24) == pytest.approx(pooled)
    assert pooled > ours + 0.3
    # It changes with the batch size, which a metric must not; one item a batch is the benchmark's.
    assert abs(batch_wise_iou(intersection, union, class_id, 2) - pooled) > 0.05
    assert batch_wise_iou(intersection, union, class_id, 1) == pytest.approx(ours)
