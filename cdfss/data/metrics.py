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
