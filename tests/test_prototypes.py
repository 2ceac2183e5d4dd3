"""Nearest prototypes: chosen by the supports alone, deterministic, one episode as many."""

import numpy as np
import pytest
import torch
from made_network import discs, episodes, given, iou, one_class

from cdfss.errors import CdfssError
from cdfss.methods import similarity
from cdfss.methods.prototypes import Prototypes


def fitted(supports, masks, **settings):
    method = Prototypes(Prototypes.Settings(**settings), given())
    method.fit(supports, masks)
    return method


@pytest.mark.parametrize("shot", [1, 3])
def test_discs_are_found(shot):
    supports, masks, queries, truth = episodes(3, shot)
    found = fitted(supports, masks).predict(queries)
    assert found.probabilities.shape == found.masks.shape == truth.shape
    assert found.probabilities.dtype == np.float32
    assert (found.masks == (found.probabilities >= 0.5)).all()
    assert iou(found.masks, truth) > 0.5


def test_a_batch_is_its_episodes():
    supports, masks, queries, _ = episodes(3, 2)
    together = fitted(supports, masks).predict(queries).probabilities
    for e in range(3):
        alone = fitted(supports[e : e + 1], masks[e : e + 1]).predict(queries[e : e + 1]).probabilities
        np.testing.assert_allclose(together[e : e + 1], alone, atol=1e-5)


def test_twice_is_the_same():
    supports, masks, queries, _ = episodes(1, 1)
    first, second = (fitted(supports, masks).predict(queries).probabilities for _ in range(2))
    assert (first == second).all()


def test_background_prototypes_cover_unlike_parts():
    cells = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, -1]]), dim=1
    )
    foreground, background = similarity.prototypes(cells, torch.tensor([0, 0, 0, 0, 1.0]), 2)
    assert torch.allclose(foreground, cells[4])
    closest = (cells[:4] @ background.T).amax(1)
    assert (closest > 0.99).all()
    assert len(similarity.prototypes(cells, torch.tensor([0, 0, 0, 0, 1.0]), 9)[1]) <= 4


def test_an_object_smaller_than_a_cell_has_a_prototype():
    pictures, masks = discs(1, radius=(1.2, 1.3))
    assert 0 < masks.sum() < 8
    found = fitted(pictures[None], masks[None]).predict(pictures[None])
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize(("value", "what"), [(False, "no foreground"), (True, "nothing but foreground")])
def test_supports_of_one_class_are_refused(value, what):
    supports, masks = one_class(value, shot=2)
    with pytest.raises(CdfssError, match=f"episode 1 of the batch.*{what}"):
        fitted(supports, masks)
    masks[1, 0] = ~masks[1, 0]  # one support of the other class is enough
    fitted(supports, masks)
