"""Inputs of the published reference numbers in tests/data, made again from their tags.

The numbers are outputs of the published implementations on inputs that anyone can regenerate:
`array(tag, shape)` is standard normal from a generator seeded with the tag's crc32.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cdfss.methods.hsnet.checkpoints import PUBLISHED_NAMES

FOLDER = Path(__file__).parent / "data"


# Arguments of HSNet for the variants of adaptation.npz.
VARIANTS = {
    "baseline": {},
    "apm_s": {"modules": ["apm_s"]},
    "apm_m": {"modules": ["apm_m"]},
    "apm_s_acpa": {"modules": ["apm_s", "acpa"]},
    "apm_m_acpa": {"modules": ["apm_m", "acpa"]},
    "baseline_acpa": {"modules": ["acpa"]},
}


def numbers(name):
    return np.load(FOLDER / f"{name}.npz", allow_pickle=False)


def episodes():
    return json.loads((FOLDER / "episodes.json").read_text())


def keys():
    """Entries of the published state dicts: name to [dtype, *shape]."""
    return json.loads((FOLDER / "keys.json").read_text())


def array(tag, shape):
    generator = np.random.RandomState(zlib.crc32(tag.encode()) % 2**32)
    return generator.standard_normal(shape).astype(np.float32)


def images(tag, n, size):
    grid = torch.from_numpy(array(tag, (n, 3, size // 16, size // 16)))
    return F.interpolate(grid, (size, size), mode="bilinear", align_corners=True)


def disks(tag, n, size):
    generator = np.random.RandomState(zlib.crc32(tag.encode()) % 2**32)
    y, x = np.mgrid[:size, :size]
    masks = []
    for _ in range(n):
        cx, cy = generator.uniform(0.3, 0.7, 2) * size
        radius = generator.uniform(0.15, 0.3) * size
        masks.append((x - cx) ** 2 + (y - cy) ** 2 <= radius**2)
    return torch.from_numpy(np.stack(masks)).float()


def fill(model, decoder_bias):
    """Give every weight of `model` the value that the reference numbers were made with."""
    state = model.state_dict()
    for key, value in state.items():
        if value.is_floating_point() and not key.startswith("chain.apm"):
            name = key
            for ours, published in PUBLISHED_NAMES.items():
                if key.startswith(ours):
                    name = published + key.removeprefix(ours)
            lead = key.startswith("chain.")  # a dimension of episodes that the published ones do not have
            weight = torch.from_numpy(_weight(name, tuple(value.shape[lead:])))
            state[key] = weight[None] if lead else weight
    state["learner.decoder2.2.bias"] = torch.from_numpy(decoder_bias)
    model.load_state_dict(state)
    return model


def _weight(name, shape):
    normal = array(f"weights/{name}", shape)
    if name.endswith("running_mean"):
        return 0.1 * normal
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(normal)
    if len(shape) == 1:
        return 1 + 0.1 * normal if name.endswith(".weight") else 0.1 * normal
    return normal * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def relative_error(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
