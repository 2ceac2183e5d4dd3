"""Draws the pictures of README and of the method to docs/pictures, from generated pictures.

    python docs/draw.py results/demo/source/0/checkpoint.safetensors

The source model is the one that `make demo` trains; without it what HSNet does is not drawn again.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cdfss import adapt
from cdfss.backbones.normalisation import normalise
from cdfss.data import metrics, scenes
from cdfss.evaluation import analyses
from cdfss.methods import calling, regression
from cdfss.methods.contract import Given, Shared
from cdfss.methods.hsnet import checkpoints
from cdfss.reports.figures.style import (
    PREDICTION,
    SMALL,
    SUPPORT,
    TRUTH,
    picture_grid,
    plt,
    tinted,
)

FOLDER = Path(__file__).parent / "pictures"
BACKBONE = "efficientnet_lite0"
SIZE = 320  # pixels of a picture's side
DEMO_SIZE = 160  # of the demo's source model
STEPS, RATE = 20, 0.2  # of Adam, as high as the demo's


def drawn(kind: str, number: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, S, S, 3) uint8 and masks (n, S, S) bool; the same ones every time."""
    rng = np.random.RandomState(7)
    looks = {name: scenes.Look(100 + i, np.random.RandomState(i)) for i, name in enumerate(scenes.OBJECTS)}
    thing = next(iter(scenes.OBJECTS))

    def one():
        if kind == "things":
            picture, masks = scenes.things(rng, scenes.OBJECTS, looks, [thing], size)
            return picture, masks[0]
        if kind == "lesions":
            return scenes.lesion(rng, "melanoma", size)
        grey, mask = scenes.chest(rng, size)
        return np.repeat(grey[..., None], 3, 2), mask

    found = [one() for _ in range(number)]
    return np.stack([scenes.to_bytes(picture) for picture, _ in found]), np.stack([m for _, m in found])


def save(figure, name: str) -> None:
    """Write a PNG of 128 colours, which is a third of the size and looks the same."""
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def show(axis, picture, title: str = "", **how) -> None:
    axis.imshow(picture, **how)
    if title:
        axis.set_title(title, fontsize=SMALL)


def segment(given: Given) -> None:
    """Supports and what is predicted of others: README's first picture."""
    supports, queries = 2, 3
    kinds = ("lesions", "lungs", "things")
    figure, axes = picture_grid(len(kinds), supports + queries, supports + queries, 1.32 * len(kinds))
    for kind, row in zip(kinds, axes):
        pictures, masks = drawn(kind, supports + queries, SIZE)
        method = calling.build("ridge", {}, given)
        method.fit(pictures[None, :supports], masks[None, :supports])
        found = method.predict(pictures[None, supports:]).masks[0]
        iou = [
            metrics.class_iou(*(counted[None] for counted in metrics.counts(f, t)), np.zeros(1, int))[0]
            for f, t in zip(found, masks[supports:])
        ]
        print(f"{kind}: IoU {', '.join(f'{100 * value:.0f}' for value in iou)}")
        for axis, picture, mask in zip(row, pictures, masks[:supports]):
            show(axis, tinted(picture, mask, SUPPORT), "labelled" if kind == kinds[0] else "")
        for axis, picture, mask in zip(row[supports:], pictures[supports:], found):
            show(axis, tinted(picture, mask, PREDICTION), "found" if kind == kinds[0] else "")
    save(figure, "segment")


def ridge(given: Given) -> None:
    """From features to scores to a mask, as `ridge` and `propagation` make them."""
    pictures, masks = drawn("lesions", 2, SIZE)
    figure, axes = picture_grid(1, 5, 5, 1.75)
    axes = axes[0]
    show(axes[0], tinted(pictures[0], masks[0], SUPPORT), "support")
    show(axes[1], pictures[1], "query")
    for axis, name in zip(axes[2:], ("ridge", "propagation")):
        method = calling.build(name, {}, given)
        method.fit(pictures[None, :1], masks[None, :1])
        with torch.inference_mode():
            scores = method._scores(method._views(pictures[None, 1:]), SIZE)[0, 0].numpy()
        threshold = regression.threshold(scores, method.settings.own, method.settings.prior)
        show(axis, scores, f"scores of {name}", cmap="PuOr_r", vmin=-1.5, vmax=1.5)
        axis.contour(scores, [threshold], colors="black", linewidths=0.8)
        found = scores >= threshold
    show(axes[4], tinted(pictures[1], found, PREDICTION), "mask of propagation")
    save(figure, "ridge")


def hsnet(checkpoint: str) -> None:
    """What HSNet compares, and what APM-M learns from one labelled picture."""
    pictures, masks = drawn("lungs", 2, DEMO_SIZE)
    model = checkpoints.build(checkpoint, BACKBONE, None, modules=["apm_m"], image_size=DEMO_SIZE)
    images = normalise(torch.from_numpy(pictures), model.facts)
    mask = torch.from_numpy(masks[:1]).float()
    adapted = adapt(model, images[:1], mask, STEPS, RATE)

    with torch.no_grad():
        support, query = model.features(images[:1]), model.features(images[1:])
        alike = [
            analyses.similarity(q[-1], s[-1], mask[0]).numpy()  # of the last map, (1, C, h, w)
            for q, s in zip(query, support)
        ]
    before = adapt(model, images[:1], mask, 0, RATE).predict(images[1:])[0].numpy()
    after = adapted.predict(images[1:])[0].numpy()

    figure, axes = picture_grid(1, 6, 6, 1.5)
    extent = (0, DEMO_SIZE, DEMO_SIZE, 0)
    show(axes[0, 0], tinted(pictures[0], masks[0], SUPPORT), "support")
    show(axes[0, 1], tinted(pictures[1], masks[1], TRUTH), "query and its truth")
    for axis, stride, heat in zip(axes[0, 2:], (8, 16, 32), alike):
        show(axis, heat, f"alike, stride {stride}", cmap="cividis", extent=extent)
        axis.contour(masks[1], [0.5], colors="white", linewidths=0.7)
    show(axes[0, 5], tinted(pictures[1], before.astype(bool), PREDICTION), "mask, modules not tuned")
    save(figure, "correlation")

    maps = support[-1][-1][0]  # (C, h, w)
    strongest = int(maps.abs().mean((1, 2)).argmax())
    factors = adapted.model.chain.factors()
    figure, axes = picture_grid(1, 6, 6, 1.5)
    centred = torch.fft.fftshift(torch.fft.fft2(maps[strongest]))
    show(axes[0, 0], maps[strongest], f"channel {strongest}", cmap="cividis")
    show(axes[0, 1], centred.abs().log1p(), "its amplitude (log)", cmap="cividis")
    show(axes[0, 2], centred.angle(), "its phase", cmap="twilight", vmin=-np.pi, vmax=np.pi)
    for axis, (name, factor) in zip(axes[0, 3:], factors.items()):
        learnt = factor[0, min(strongest, len(factor[0]) - 1)].detach()
        span = f"{learnt.min():.2f} to {learnt.max():.2f}"
        show(axis, learnt, f"learnt for {name}\n{span}", cmap="cividis", vmin=0, vmax=1)
    show(axes[0, 5], tinted(pictures[1], after.astype(bool), PREDICTION), f"mask, {STEPS} steps later")
    save(figure, "apm")
    losses = adapted.losses
    print(f"loss of the support {losses[0]:.3f} -> {losses[-1]:.3f}")
    for what, found in (("not tuned", before), ("tuned", after)):
        of_it = [counted[None] for counted in metrics.counts(found, masks[1].astype(int))]
        print(f"{what}: IoU {100 * metrics.class_iou(*of_it, np.zeros(1, int))[0]:.1f}")


def main(arguments: list[str]) -> None:
    given = Given(SIZE, 0, torch.device("cpu"), BACKBONE, shared=Shared(several=True))
    segment(given)
    ridge(given)
    if arguments:
        hsnet(arguments[0])


if __name__ == "__main__":
    main(sys.argv[1:])
