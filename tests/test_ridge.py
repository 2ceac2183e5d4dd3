"""Ridge regression in closed form: it equals plain solutions, one episode as many, no query label."""

import inspect

import numpy as np
import pytest
import torch
from made_network import discs, episodes, given, iou, one_class

from cdfss.errors import CdfssError
from cdfss.methods import regression
from cdfss.methods.ridge import Ridge
from cdfss.running.precision import precision


def fitted(supports, masks, network=None, **settings):
    method = Ridge(Ridge.Settings(**settings), given(**(network or {})))
    method.fit(supports, masks)
    return method


def rows(shot=4, cells=30, features=7, seed=0):
    """Random cells (k, N, D) with shares of foreground (k, N), some of them soft, in float64."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randn(shot, cells, features, generator=generator, dtype=torch.float64)
    shares = (cells[..., 0] + torch.rand(cells.shape[:2], generator=generator)).clamp(0, 1)
    return cells, shares


def plainly(cells, shares, penalty):
    """Weighted ridge regression with NumPy, cell by cell: w (D,) and offset."""
    x = np.concatenate([cells.reshape(-1, cells.shape[-1])] * 2)
    share = np.asarray(shares).ravel()
    y = np.repeat([1.0, -1.0], len(share))
    v = np.concatenate([share / share.sum(), (1 - share) / (1 - share).sum()]) / 2
    mean = v @ x
    deviation = np.sqrt(v @ (x - mean) ** 2)
    z = np.column_stack([(x - mean) / deviation, np.ones(len(x))])
    penalties = penalty * np.diag([1.0] * (z.shape[1] - 1) + [0.0])  # the offset has none
    u = np.linalg.solve(z.T @ (z * v[:, None]) + penalties, z.T @ (v * y))
    return u[:-1] / deviation, u[-1] - mean @ (u[:-1] / deviation)


@pytest.mark.parametrize("penalty", [0.01, 1.0, 10.0])
def test_the_solution_is_that_of_weighted_regression(penalty):
    cells, shares = rows()
    weights, offset = regression.solve(regression.moments(cells, shares, 1 - shares).sum(0), penalty)
    expected, constant = plainly(cells.numpy(), shares, penalty)
    np.testing.assert_allclose(weights, expected, rtol=1e-8)
    np.testing.assert_allclose(offset, constant, rtol=1e-8)


def test_leaving_out_a_support_is_refitting_without_it():
    cells, shares = rows()
    of = regression.moments(cells[None], shares[None], 1 - shares[None])
    weights, offsets = regression.solve(regression.others(of), 1.0)
    for left in range(len(cells)):
        rest = [i for i in range(len(cells)) if i != left]
        expected, constant = plainly(cells[rest].numpy(), shares[rest], 1.0)
        np.testing.assert_allclose(weights[0, left], expected, rtol=1e-8)
        np.testing.assert_allclose(offsets[0, left], constant, rtol=1e-8)


def test_errors_are_those_of_the_cells():
    cells, shares = rows(shot=1)
    of = regression.moments(cells, shares, 1 - shares)
    weights, offset = torch.randn(1, 7, dtype=torch.float64), torch.randn(1, dtype=torch.float64)
    found = (cells @ weights[0] + offset)[0]
    for number, (target, weight) in enumerate(((-1, 1 - shares[0]), (1, shares[0]))):
        expected = (weight * (found - target) ** 2).sum() / weight.sum()
        assert regression.squared_errors(of, weights, offset)[0, number] == pytest.approx(float(expected))


def test_the_penalty_is_the_one_that_tells_supports_from_the_others():
    cells, shares = rows()
    cells[..., 1:] += torch.randn(4, 1, 6, dtype=torch.float64) * 3  # each support lies elsewhere
    tried = (1.0, 0.01, 0.1, 10.0, 100.0)

    def error(penalty):
        total = 0
        for left in range(4):
            rest = [i for i in range(4) if i != left]
            weights, offset = plainly(cells[rest].numpy(), shares[rest], penalty)
            found, share = cells[left].numpy() @ weights + offset, shares[left].numpy()
            for target, weight in ((-1, 1 - share), (1, share)):
                total += (weight * (found - target) ** 2).sum() / weight.sum()
        return total

    of = regression.moments(cells[None], shares[None], 1 - shares[None])
    assert float(regression.best_penalties(of, tried)) == pytest.approx(min(tried, key=error))
    single = regression.Moments(*(part[:, :1] for part in of))
    assert float(regression.best_penalties(single, tried)) == 1.0  # there is no other support


def test_scores_are_those_of_interpolated_features():
    maps = [torch.randn(2, 3, c, side, side) for c, side in ((4, 6), (5, 3))]
    weights, offset = torch.randn(2, 3, 9), torch.randn(2, 3)
    fine = torch.cat([regression.resized_to(m.flatten(0, 1), 12) for m in maps], 1).unflatten(0, (2, 3))
    expected = torch.einsum("endhw,end->enhw", fine, weights) + offset[..., None, None]
    torch.testing.assert_close(regression.scores(maps, weights, offset, 12), expected)


def test_otsu_is_the_best_of_all_cuts():
    values = np.random.RandomState(0).normal(size=200) + 3 * (np.arange(200) < 60)

    def between(cut):
        low, high = values[values <= cut], values[values > cut]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    cuts = np.sort(values)[:-1]
    assert between(regression.otsu(values)) == pytest.approx(max(map(between, cuts)))
    assert regression.otsu(np.full(9, 0.3)) == pytest.approx(0.3)


def test_the_threshold_follows_the_scores_of_the_query():
    generator = np.random.RandomState(0)
    classes = np.repeat([-1.0, 1.0], [800, 200])
    scores = classes + generator.normal(0, 0.2, 1000)
    assert regression.threshold(scores - 1.5, 1, 0) == pytest.approx(
        -1.5, abs=0.2
    )  # found wherever they lie
    assert regression.threshold(scores - 1.5, 0.5, 0) == pytest.approx(-0.75, abs=0.1)
    # A rare class needs better evidence, a frequent one less.
    assert regression.threshold(scores, 1, 0.2) == pytest.approx(
        regression.threshold(scores, 1, 0) + 0.2 * np.log(4), abs=1e-9
    )
    assert regression.threshold(-scores, 1, 0.2) < regression.threshold(-scores, 1, 0)
    assert np.isfinite(regression.threshold(np.zeros(10), 0.5, 0.2))


@pytest.mark.parametrize("shot", [1, 3])
def test_discs_are_found(shot):
    supports, masks, queries, truth = episodes(3, shot)
    kept = supports.copy(), masks.copy(), queries.copy()
    found = fitted(supports, masks).predict(queries)
    assert found.probabilities.shape == found.masks.shape == truth.shape
    assert found.probabilities.dtype == np.float32
    assert found.masks.dtype == bool
    assert ((found.probabilities >= 0) & (found.probabilities <= 1)).all()
    assert (found.masks == (found.probabilities >= 0.5)).all()
    assert iou(found.masks, truth) > 0.6
    assert all((a == b).all() for a, b in zip(kept, (supports, masks, queries)))


def test_the_query_is_given_as_a_picture_alone():
    assert list(inspect.signature(Ridge.predict).parameters) == ["self", "pictures"]


def test_a_batch_is_its_episodes_and_queries_do_not_mix():
    supports, masks, queries, _ = episodes(3, 2)
    queries = np.concatenate([queries, queries[::-1]], 1)  # (3, 2, S, S, 3)
    together = fitted(supports, masks).predict(queries).probabilities
    for e in range(3):
        method = fitted(supports[e : e + 1], masks[e : e + 1])
        for n in range(2):
            alone = method.predict(queries[e : e + 1, n : n + 1]).probabilities[0, 0]
            np.testing.assert_allclose(together[e, n], alone, atol=1e-5)


def test_twice_is_the_same():
    supports, masks, queries, _ = episodes(1, 1)
    first, second = (fitted(supports, masks).predict(queries).probabilities for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("network", [{"strides": (16,)}, {"strides": (4, 8)}, {"channels": 150}])
def test_other_networks_serve(network):
    supports, masks, queries, truth = episodes(2, 1)
    found = fitted(supports, masks, network, features=64)
    assert found.weights_.shape[-1] <= 64
    assert iou(found.predict(queries).masks, truth) > 0.4


def test_channels_are_shared_among_maps():
    assert regression.share([40, 112, 192], 344) == 192
    assert regression.share([40, 112, 192], 240) == 100
    assert regression.share([512, 1024, 2048], 768) == 256


def test_an_object_smaller_than_a_cell_counts():
    pictures, masks = discs(1, radius=(1.2, 1.3), colour=(255, 0, 0))
    assert 0 < masks.sum() < 8
    method = fitted(pictures[None], masks[None], cells=7)
    assert method.weights_.abs().max() > 0
    found = method.predict(pictures[None])
    assert np.isfinite(found.probabilities).all()
    # Its pixels are seen as more likely than the others.
    assert found.probabilities[0][masks].mean() > found.probabilities[0][~masks].mean() + 0.1


def test_a_support_without_the_object_serves_beside_others():
    supports, masks, queries, truth = episodes(1, 2)
    masks = masks.copy()
    masks[0, 1] = False
    supports[0, 1] = 110
    found = fitted(supports, masks).predict(queries)
    assert np.isfinite(found.probabilities).all()
    assert iou(found.masks, truth) > 0.5


@pytest.mark.parametrize(("value", "what"), [(False, "no foreground"), (True, "nothing but foreground")])
def test_supports_of_one_class_are_refused(value, what):
    supports, masks = one_class(value)
    with pytest.raises(CdfssError, match=f"episode 1 of the batch.*{what}"):
        fitted(supports, masks)


def test_the_solve_is_float32_whatever_the_precision_of_features():
    supports, masks, queries, _ = episodes(2, 2)
    plain = fitted(supports, masks).predict(queries).probabilities
    with precision("bfloat16", torch.device("cpu")):
        method = fitted(supports, masks)
        rounded = method.predict(queries).probabilities
    assert method.weights_.dtype == torch.float32
    # Features rounded to 7 bits move scores a little; a solve in 7 bits would not be positive definite.
    assert np.abs(rounded - plain).mean() < 0.02
