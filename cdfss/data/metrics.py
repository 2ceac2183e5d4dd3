"""Segmentation metrics from integer counts, without torch (HSNet common/evaluation.py)."""

import numpy as np


def counts(prediction, truth, void=None) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of background and foreground, in pixels.

    Args:
        prediction, truth: masks (..., H, W) of 0 and 1.
        void: (..., H, W), true where a pixel must not count; None counts all.

    Returns:
        Two int64 arrays (..., 2): background first.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    valid = np.ones(truth.shape, bool) if void is None else ~np.asarray(void, bool)
    intersection, union = [], []
    for label in (0, 1):
        predicted, true = (prediction == label) & valid, (truth == label) & valid
        intersection.append((predicted & true).sum((-2, -1)))
        union.append((predicted | true).sum((-2, -1)))
    return np.stack(intersection, -1).astype(np.int64), np.stack(union, -1).astype(np.int64)


def class_iou(intersection, union, class_id) -> dict[int, float]:
    """Foreground IoU in 0..1 per class: counts summed over the class's episodes, then divided.

    Args:
        intersection, union: (N, 2) as `counts` gives them.
        class_id: (N,).
    """
    intersection, union = np.asarray(intersection), np.asarray(union)
    class_id = np.asarray(class_id)
    return {
        int(c): float(intersection[class_id == c, 1].sum() / max(union[class_id == c, 1].sum(), 1))
        for c in np.unique(class_id)
    }


def mean_iou(intersection, union, class_id) -> float:
    """mIoU in 0..1: mean of `class_iou` over the classes that occur."""
    return float(np.mean(list(class_iou(intersection, union, class_id).values())))


def fb_iou(intersection, union) -> float:
    """FB-IoU in 0..1: counts summed over everything, mean of background and foreground IoU."""
    total = np.asarray(union).sum(0)
    return float(np.mean(np.asarray(intersection).sum(0) / np.maximum(total, 1)))


# For comparison with other papers only.

# Episodes at once in the tests of IFA, by shots (niejiahao1998/IFA, all.sh, commit 99001f6).
BATCH_OF_IFA = {1: 96, 5: 48}


def batchwise_miou(intersection, union, class_id, batch: int) -> float:
    """What IFA's code prints as mIoU, in 0..1. **Not comparable** with `mean_iou`.

    Its test.py counts a whole batch for the class of the batch's first episode, and its mean holds
    background besides (util/utils.py of niejiahao1998/IFA, commit 99001f6; confirmed in its issue 16). With
    class = episode mod classes and a batch that is a multiple of the number of classes, every batch
    counts for the first class, and the score is FB-IoU. It changes with the batch. A data set of one
    class gets its foreground IoU.

    Its histogram has no place for the last class, so that batches which begin with it are counted
    wrongly there; no full list has one with BATCH_OF_IFA. Here they count like others.

    Args:
        intersection, union: (N, 2) as `counts` gives them, in the order of the list.
        class_id: (N,).
        batch: episodes that are counted for one class.
    """
    intersection, union, class_id = map(np.asarray, (intersection, union, class_id))
    if len(np.unique(class_id)) == 1:
        return mean_iou(intersection, union, class_id)
    first = class_id[np.arange(len(class_id)) // batch * batch]
    ious = [intersection[:, 0].sum() / union[:, 0].sum()] if union[:, 0].any() else []
    present = [c for c in np.unique(first) if union[first == c, 1].any()]  # it leaves out 0 / 0
    counted = class_iou(intersection, union, first)
    return float(np.mean([*ious, *(counted[int(c)] for c in present)]))


def counts_at_own_size(prediction, pixels) -> tuple[np.ndarray, np.ndarray]:
    """`counts` of a prediction that is brought to the size of the query's own mask (nearest).

    Args:
        prediction: mask (S, S) of 0 and 1.
        pixels: (2, S, S), background and foreground of the own mask, as `Index.read_whole_mask` gives them.

    Returns:
        Two int64 arrays (2,): background first.
    """
    prediction, pixels = np.asarray(prediction, bool), np.asarray(pixels)
    true = pixels.sum((1, 2), np.int64)
    as_foreground = (pixels * prediction).sum((1, 2), np.int64)
    found = np.stack([true[0] - as_foreground[0], as_foreground[1]])
    wrong = true - found  # of a label, pixels that were given the other one: they are in its union too
    return found, true + wrong[::-1]
