"""Ridge, dense matching and their spread over a query: equal to plain solutions, one episode as many."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_network import discs, episodes, given, iou, one_class

from cdfss.errors import CdfssError
from cdfss.methods import affinity
from cdfss.methods.propagation import Propagation
from cdfss.methods.ridge import Ridge
from cdfss.running.precision import precision


def fitted(supports, masks, cls=Propagation, network=None, **settings):
    method = cls(cls.Settings(**settings), given(**(network or {})))
    method.fit(supports, masks)
    return method


def units(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def test_matching_is_the_mean_cosine_to_the_nearest_of_each_class():
    cells, supports = units(2, 3, 5, 6), units(2, 20, 6, seed=1)
    shares = torch.rand(2, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = affinity.matching(cells, supports, shares, 1 - shares, 4)
    for e, n, i in np.ndindex(2, 3, 5):
        cosines = supports[e].numpy() @ cells[e, n, i].numpy()
        inside = shares[e].numpy() >= 0.5
        expected = np.sort(cosines[inside])[-4:].mean() - np.sort(cosines[~inside])[-4:].mean()
        assert float(found[e, n, i]) == pytest.approx(expected)


def test_a_class_that_fills_no_half_of_a_cell_is_matched_where_it_is_most():
    cells, supports = units(1, 1, 5, 6), units(1, 20, 6, seed=1)
    shares = torch.full((1, 20), 0.1, dtype=torch.float64)
    shares[0, 7] = 0.3
    cosines = cells[0, 0] @ supports[0].T
    for share, sign in ((shares, 1), (1 - shares, -1)):
        found = affinity.matching(cells, supports, share, 1 - share, 3)[0, 0]
        rest = cosines.topk(3, -1).values.mean(-1)  # all others, and it: less than half is foreground
        torch.testing.assert_close(sign * found, cosines[:, 7] - rest)


def test_cells_are_joined_to_those_most_like_them_and_never_to_themselves():
    cells = units(2, 12, 4)
    weights = affinity.affinities(cells, 3, 0.2)
    cosines = cells @ cells.transpose(-1, -2)
    torch.testing.assert_close(weights, weights.transpose(-1, -2))
    for e in range(2):
        likest = [set(np.argsort(-cosines[e, i].numpy())[1:4]) for i in range(12)]
        for i, j in np.ndindex(12, 12):
            joined = i != j and (j in likest[i] or i in likest[j])
            expected = np.exp((float(cosines[e, i, j]) - 1) / 0.2) if joined else 0.0
            assert float(weights[e, i, j]) == pytest.approx(expected)


def test_the_spread_is_the_minimum_of_its_sum_of_squares():
    weights = affinity.affinities(units(9, 4), 3, 0.2)
    scores = torch.randn(9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def cost(f):
        own = (weights.sum(-1) * (f - scores) ** 2).sum()
        return own + 2.5 / 2 * (weights * (f[:, None] - f[None]) ** 2).sum()

    found = affinity.propagated(scores, weights, 2.5).requires_grad_()
    cost(found).backward()
    assert found.grad.abs().max() < 1e-10
    # By linear algebra, and as the fixed point of a walk that goes on in 2.5 of 3.5 steps.
    laplacian = np.diag(weights.sum(-1)) - weights.numpy()
    degrees = np.diag(weights.sum(-1))
    plain = np.linalg.solve(degrees + 2.5 * laplacian, degrees @ scores.numpy())
    np.testing.assert_allclose(found.detach(), plain, rtol=1e-9)
    walked = scores.numpy()
    for _ in range(200):
        walked = (scores.numpy() + 2.5 * np.linalg.solve(degrees, weights.numpy() @ walked)) / 3.5
    np.testing.assert_allclose(found.detach(), walked, rtol=1e-6)


def test_a_spread_of_no_strength_or_of_equal_scores_changes_nothing():
    weights = affinity.affinities(units(3, 9, 4), 3, 0.2)
    scores = torch.randn(3, 9, dtype=torch.float64)
    torch.testing.assert_close(affinity.propagated(scores, weights, 0.0), scores)
    torch.testing.assert_close(
        affinity.propagated(torch.full_like(scores, 0.7), weights, 50.0), torch.full_like(scores, 0.7)
    )


def test_an_outlier_among_alike_cells_is_outvoted():
    """What the spread is for: a cell of the object that scores as background, amid others like it."""
    groups = F.normalize(torch.eye(2).repeat_interleave(20, 0) + 0.1 * torch.randn(40, 2), dim=-1)
    scores = torch.tensor([1.0, -1.0]).repeat_interleave(20)
    scores[3] = -1.0
    found = affinity.propagated(scores, affinity.affinities(groups, 8, 0.05), 8.0)
    assert found[3] > 0.3
    assert (found[20:] < 0).all()


def test_with_nothing_of_its_own_it_is_ridge():
    supports, masks, queries, _ = episodes(2, 2)
    plain = fitted(supports, masks, Ridge, own=0.7).predict(queries).probabilities
    found = fitted(supports, masks, matching=0.0, strength=0.0).predict(queries).probabilities
    np.testing.assert_allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize("shot", [1, 3])
def test_discs_are_found(shot):
    supports, masks, queries, truth = episodes(3, shot)
    kept = supports.copy(), masks.copy(), queries.copy()
    found = fitted(supports, masks).predict(queries)
    assert found.probabilities.shape == found.masks.shape == truth.shape
    assert found.probabilities.dtype == np.float32
    assert (found.masks == (found.probabilities >= 0.5)).all()
    assert iou(found.masks, truth) > 0.6
    assert all((a == b).all() for a, b in zip(kept, (supports, masks, queries)))


def test_a_batch_is_its_episodes_and_queries_do_not_mix():
    supports, masks, queries, _ = episodes(3, 2)
    queries = np.concatenate([queries, queries[::-1]], 1)  # (3, 2, S, S, 3)
    together = fitted(supports, masks).predict(queries).probabilities
    for e in range(3):
        method = fitted(supports[e : e + 1], masks[e : e + 1])
        for n in range(2):
            alone = method.predict(queries[e : e + 1, n : n + 1]).probabilities[0, 0]
            np.testing.assert_allclose(together[e, n], alone, atol=1e-4)


@pytest.mark.parametrize("network", [{"strides": (16,)}, {"strides": (4, 8)}, {"channels": 150}])
def test_other_networks_serve(network):
    supports, masks, queries, truth = episodes(2, 1)
    found = fitted(supports, masks, network=network, features=64)
    assert found.supports_.shape[-1] <= 32  # of one scale of two
    assert iou(found.predict(queries).masks, truth) > 0.4


def test_an_object_smaller_than_a_cell_counts():
    pictures, masks = discs(1, radius=(1.2, 1.3), colour=(255, 0, 0))
    found = fitted(pictures[None], masks[None], cells=7).predict(pictures[None])
    assert np.isfinite(found.probabilities).all()
    assert found.probabilities[0][masks].mean() > found.probabilities[0][~masks].mean() + 0.1


def test_fewer_cells_than_neighbours_serve():
    supports, masks, queries, _ = episodes(1, 1)
    found = fitted(supports, masks, cells=2).predict(queries)
    assert np.isfinite(found.probabilities).all()


def test_a_picture_of_one_colour_has_finite_scores():
    supports, masks, queries, _ = episodes(1, 1)
    found = fitted(supports, masks).predict(np.full_like(queries, 110))
    assert np.isfinite(found.probabilities).all()


@pytest.mark.parametrize(("value", "what"), [(False, "no foreground"), (True, "nothing but foreground")])
def test_supports_of_one_class_are_refused(value, what):
    supports, masks = one_class(value)
    with pytest.raises(CdfssError, match=f"episode 1 of the batch.*{what}"):
        fitted(supports, masks)


def test_it_computes_in_float32_whatever_the_precision_of_features():
    supports, masks, queries, _ = episodes(2, 2)
    plain = fitted(supports, masks).predict(queries).probabilities
    with precision("bfloat16", torch.device("cpu")):
        rounded = fitted(supports, masks).predict(queries).probabilities
    assert np.abs(rounded - plain).mean() < 0.03
