"""What a device computes, as plain numbers: the same calls for a processor, a GPU and a pretended one."""

import numpy as np
import torch
from conftest import balanced, episode_of, small_hsnet
from reference import VARIANTS

from cdfss import adapt
from cdfss.evaluation import evaluate, measurement, results
from cdfss.methods import training
from cdfss.methods.hsnet.step import Runner
from cdfss.methods.hsnet.training import Trainee
from cdfss.running.precision import precision

CPU = torch.device("cpu")
# Every variant, and every way to adapt that takes other steps of code.
ADAPTATIONS = {name: (name, {}) for name in VARIANTS} | {
    "leave one out": ("apm_s", {"pairs": "leave_one_out"}),
    "mutual information": ("apm_s", {"mutual_information": 0.1}),
    "learner": ("apm_s", {"trained": ["learner"]}),
    "backbone and masker": ("apm_s_acpa", {"trained": ["apm_s", "backbone"]}),
}


class AllPositions(Runner):
    """Steps of the shapes of a GPU on all devices: sums over fewer positions are rounded otherwise."""

    def fixed(self, device):
        return True


def adaptation(name: str, device: torch.device, episodes: int = 0, kind: str = "float32") -> dict:
    """Losses, gradients after the last step, how far parameters moved, and masks of an adaptation.

    Args:
        name: of ADAPTATIONS.
        episodes: of a batch; 0 for a single episode without a leading dimension.
        kind: of precision.
    """
    variant, how = ADAPTATIONS[name]
    query, supports, masks = episode_of()
    model = balanced(small_hsnet(**VARIANTS[variant]), query, supports, masks)
    model.learner.requires_grad_(False)
    if episodes:
        query = torch.cat([query.roll(7 * e, -1) for e in range(episodes)])
        supports, masks = (
            torch.stack([t.roll(5 * e, -2) for e in range(episodes)]) for t in (supports, masks)
        )
    model, query, supports, masks = (x.to(device) for x in (model, query, supports, masks))
    with precision(kind, device):
        rate = 1e-4 if "trained" in how else 0.05
        adapted = adapt(model, supports, masks, 0, rate, runner=AllPositions(), **how)
        before = [parameter.detach().clone() for parameter in adapted.optimiser.parameters]
        for _ in range(3 if before else 0):
            adapted.step()
        gradients = adapted._losses_and_gradients()[1] if before else []
        predicted = adapted.predict(query)
    moved = [after.detach() - start for after, start in zip(adapted.optimiser.parameters, before)]
    return {
        "losses": adapted.losses.numpy(),
        "gradients": [g.cpu().numpy() for g in gradients],
        "moved": [m.cpu().numpy() for m in moved],
        "masks": predicted.cpu().numpy(),
    }


class Pictures:
    """Four random pictures with a square, as an index gives them."""

    name = "stub"

    def __init__(self):
        import pandas as pd

        self.rows = pd.DataFrame({"class_id": [0] * 4})

    def read(self, row, size):
        picture = np.random.RandomState(row.name).randint(0, 256, (size, size, 3)).astype(np.uint8)
        mask = np.zeros((size, size), bool)
        mask[10 + row.name : 40, 20:50] = True
        return picture, mask, np.zeros((size, size), bool)


def source_training(device: torch.device, cache: float, kind: str = "float32") -> dict:
    """Losses and movement of two steps of source training, and the validation after them."""
    pairs = np.array([[0, 1], [2, 3], [1, 2], [3, 0]])
    torch.manual_seed(0)
    settings = {"backbone": "efficientnet_lite0", "image_size": 64, "learning_rate": 1e-3}
    trainee = Trainee(settings, "imagenet", device)
    before = [parameter.detach().clone() for parameter in trainee.trained.parameters()]
    batches = training.Batches(trainee.model, Pictures(), range(4), 64, cache, log=lambda line: None)
    generator = np.random.RandomState(0)
    with precision(kind, device):
        losses = [training._step(trainee, batch, generator)[0].item() for batch in batches(pairs, 2)]
        validated = training.validate(trainee, batches, pairs, 2)
    moved = [after.detach() - start for after, start in zip(trainee.trained.parameters(), before)]
    assert (batches.kept is not None) == bool(cache)
    return {"losses": np.array(losses), "moved": [m.cpu().numpy() for m in moved], "validated": validated}


def _alone(settings: dict, checkpoint) -> dict:
    """A job's variants, when there is one."""
    return {"v": {"settings": settings, "checkpoint": checkpoint, "weights": None}}


def evaluated(folder, settings: dict, files, checkpoint, compute: dict):
    """Rows that an evaluation job of one variant writes into a folder."""
    paths = [folder / f"{kind}.parquet" for kind in ("rows", "predictions", "cost")]
    variants = _alone(settings | {"shard": 0, "shards": 1}, checkpoint)
    evaluate.run(variants, *files, *([path] for path in paths), folder / "kept", compute)
    return results.load(paths[0])


def measured(kind: str, settings: dict, files, checkpoint, path, compute: dict) -> None:
    """A job of `measurement`, "features" or "filtering"."""
    if kind == "filtering":
        measurement.filtering(settings, *files, checkpoint, None, path, compute)
    else:
        measurement.features(_alone(settings, checkpoint), *files, [path], path.with_suffix(""), compute)


def assert_same(here: dict, there: dict, losses: float, apart: float, pixels: float = 0.0) -> None:
    """Refuse results of two devices that differ by more than rounding.

    Losses barely move in a few steps, so that they agree even if nothing is learnt: what a step did,
    gradients and movement of every parameter, is compared too, in its own size.

    Args:
        losses: relative difference that is allowed of losses.
        apart: of gradients, and four times as much of movements, since Adam's first steps go by signs.
        pixels: share of those whose mask may differ.
    """
    np.testing.assert_allclose(there["losses"], here["losses"], rtol=losses)
    for kind, factor in (("gradients", 1), ("moved", 4)):
        for number, (mine, theirs) in enumerate(zip(here.get(kind, []), there.get(kind, []), strict=True)):
            size = np.linalg.norm(mine)
            difference = np.linalg.norm(theirs - mine)
            allowed = factor * apart * size + 1e-12
            assert difference <= allowed, f"{kind} {number}: {difference:.3g} of {size:.3g}"
    if "masks" in here:
        assert (there["masks"] != here["masks"]).mean() <= pixels
    if "validated" in here:
        assert abs(there["validated"] - here["validated"]) <= 0.02


def assert_same_rows(here, there, losses: float, pixels: int) -> None:
    """Refuse evaluation rows (DataFrames) of two devices that differ by more than rounding.

    Args:
        losses: relative difference that is allowed of losses.
        pixels: of counts.
    """
    for column in here.columns:
        if column.startswith(("intersection", "union")):
            assert (there[column] - here[column]).abs().max() <= pixels, column
        elif column.endswith("loss"):
            np.testing.assert_allclose(there[column], here[column], rtol=losses, err_msg=column)
        else:
            assert list(map(str, there[column])) == list(map(str, here[column])), column
