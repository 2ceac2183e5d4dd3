"""A GPU gives the numbers of the processor; skipped where there is none."""

import pytest
import torch
from conftest import balanced, episode_of, small_hsnet
from reference import VARIANTS

from cdfss import adapt, devices

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("precision", "losses_apart"), [("float32", 1e-4), ("tf32", 1e-3), ("bfloat16", 1e-2)]
)
def test_adaptation_on_a_gpu_equals_that_on_the_processor(variant, precision, losses_apart):
    query, supports, masks = episode_of()
    model = balanced(small_hsnet(**VARIANTS[variant]), query, supports, masks)
    steps = 0 if variant == "baseline" else 3
    here = adapt(model, supports, masks, steps, 0.05)
    predicted_here = here.predict(query)  # before what it shares with the model moves to the GPU
    chosen = torch.device("cuda")
    with devices.precision(precision, chosen):
        there = adapt(model.to(chosen), supports.to(chosen), masks.to(chosen), steps, 0.05)
        predicted = there.predict(query.to(chosen)).cpu()
    assert there.losses.tolist() == pytest.approx(here.losses.tolist(), rel=losses_apart)
    assert (predicted != predicted_here).float().mean() < 0.02
