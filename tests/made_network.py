"""A tiny fixed network and pictures of coloured discs for methods that need a backbone."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

FACTS = SimpleNamespace(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class TinyNetwork:
    """Random convolutions: one map more than the stride before, for every stride."""

    facts = FACTS

    def __init__(self, strides=(8, 16, 32), channels=12):
        generator = torch.Generator().manual_seed(1)
        self.strides = strides
        self.kernels = [
            [torch.randn(channels + 2 * number, 3, 3, 3, generator=generator) for _ in range(number + 1)]
            for number in range(len(strides))
        ]

    def __call__(self, images):
        maps = []
        for stride, kernels in zip(self.strides, self.kernels):
            small = F.avg_pool2d(images, stride)
            maps.append([F.conv2d(small, kernel, padding=1) for kernel in kernels])
        return maps


def given(size=64, **network):
    """What a method is given, with the tiny network."""
    tiny = TinyNetwork(**network)
    return SimpleNamespace(image_size=size, seed=0, device=torch.device("cpu"), network=tiny)


def discs(number, size=64, radius=(10, 20), seed=0, colour=(220, 80, 40)):
    """Coloured discs on grey noise: pictures (number, S, S, 3) uint8 and masks (number, S, S) bool."""
    generator = np.random.RandomState(seed)
    y, x = np.mgrid[:size, :size]
    pictures, masks = [], []
    for _ in range(number):
        r = generator.uniform(*radius)
        middle = generator.uniform(0.3 * size, 0.7 * size, 2)
        mask = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < r**2
        picture = np.where(mask[..., None], colour, 110) + generator.normal(0, 12, (size, size, 3))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
        masks.append(mask)
    return np.stack(pictures), np.stack(masks)


def episodes(number, shot, **how):
    """Supports (E, k, S, S, 3), their masks (E, k, S, S), queries (E, 1, S, S, 3) and theirs."""
    pictures, masks = discs(number * (shot + 1), **how)
    pictures, masks = (a.reshape(number, shot + 1, *a.shape[1:]) for a in (pictures, masks))
    return pictures[:, :shot], masks[:, :shot], pictures[:, shot:], masks[:, shot:]


def one_class(value, shot=1):
    """Supports and masks of two episodes, of which the second's masks are all `value`."""
    supports, masks, _, _ = episodes(2, shot)
    masks = masks.copy()
    masks[1] = value
    return supports, masks


def iou(predicted, truth):
    return (predicted & truth).sum() / (predicted | truth).sum()
