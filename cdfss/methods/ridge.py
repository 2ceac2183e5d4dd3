"""Ridge regression in closed form from frozen features to the supports' masks."""

import numpy as np
from pydantic import Field
from scipy.special import expit

from cdfss.methods import contract
from cdfss.methods.contract import Positive


class Settings(contract.Settings):
    """One configuration for all domains and shots."""

    scales: tuple[Positive, ...] = Field(
        (1.0, 2.0),
        min_length=1,
        description="how large the backbone sees pictures, in units of the image size; features of all "
        "scales are put side by side",
    )
    maps: int = Field(1, ge=1, description="last feature maps of each stride that are used")
    features: int = Field(
        768,
        ge=1,
        description="most channels of all maps and scales together; if more, maps are projected at random",
    )
    cells: int = Field(28, ge=1, description="cells per side of a picture that regression is fitted on")
    penalties: tuple[Positive, ...] = Field(
        (2.0, 1.0, 4.0, 8.0),
        min_length=1,
        description="lambda, in units of the variance of a feature: the first for a single support; with "
        "more, the one with which supports are told best from the others",
    )
    second: float = Field(
        0.6, ge=0, le=1, description="weight of the second solution, which knows the query's surest cells"
    )
    own: float = Field(
        0.5,
        ge=0,
        le=1,
        description="threshold between the midpoint of the supports' classes, 0, and Otsu's threshold of "
        "the query's own scores, 1",
    )
    prior: float = Field(
        0.15,
        ge=0,
        description="how far the threshold follows the query's own share of foreground, in scores (the "
        "supports' classes are 2 apart) per unit of log odds",
    )


class Ridge(contract.Method):
    """Fits masks by linear regression on features; the closed form needs no step and no source data."""

    needs = "backbone"
    batched = True
    negatives = True
    takes_unknown = True
    Settings = Settings

    def fit(self, pictures: np.ndarray, masks: np.ndarray, unknown: np.ndarray | None = None) -> None:
        """Solve for E episodes: pictures (E, k, S, S, 3) uint8, masks and unknown (E, k, S, S) bool."""
        import torch

        from cdfss.running.precision import float32

        contract.refuse_one_class(masks, unknown)
        with torch.inference_mode():
            views = self._views(pictures)
        with torch.inference_mode(), float32(self.given.device):
            foreground = self._shares(masks)
            left = 1 if unknown is None else 1 - self._shares(unknown)
            self._learn(views, foreground, (left - foreground).clamp(min=0))

    def predict(self, pictures: np.ndarray) -> contract.Prediction:
        """Segment n queries of each episode, each by itself: pictures (E, n, S, S, 3) uint8."""
        import torch

        from cdfss.methods import regression
        from cdfss.running.precision import float32

        how = self.settings.own, self.settings.prior
        with torch.inference_mode():
            views = self._views(pictures)
        with torch.inference_mode(), float32(self.given.device):
            scores = self._scores(views, pictures.shape[2]).cpu().numpy()  # (E, n, S, S)
        thresholds = np.array([[regression.threshold(s, *how) for s in of] for of in scores])
        margins = scores - thresholds[..., None, None].astype(np.float32)
        # The supports' classes lie at -1 and +1, where this gives 0.12 and 0.88.
        return contract.Prediction(expit(2 * margins))

    def forget(self) -> None:
        """Of what was learnt nothing stays."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _learn(self, views: list[list], foreground, background) -> None:
        """Solve for the supports: views as `_views` gives them, and shares of cells (E, k, cells)."""
        from cdfss.methods import regression

        cells = self._cells(views)  # (E, k, views * cells, D)
        shares = [s.repeat(1, 1, len(views)) for s in (foreground, background)]  # the same in every view
        # Sums of squares are taken about a point amid the cells: they keep more digits.
        self.centre_ = cells.mean((1, 2))  # (E, D)
        of_supports = regression.moments(self._centred(cells), *shares)  # (E, k, ...)
        choice = self.settings.penalties if cells.shape[1] > 1 else self.settings.penalties[:1]
        self.penalties_ = regression.best_penalties(of_supports, choice)  # (E,)
        self.moments_ = of_supports.sum(1)
        self.weights_, self.offset_ = regression.solve(self.moments_, self.penalties_)

    def _scores(self, views: list[list], size: int):
        """Scores of queries (E, n, size, size), the supports' classes at -1 and +1.

        Each query is solved for twice: its cells of which the first solution is most sure are added to
        the supports', since they show the object as it looks in this picture.
        """
        import torch

        from cdfss.methods import regression

        cells = self._centred(self._cells(views))  # (E, n, views * cells, D)
        first = torch.einsum("envd,ed->env", cells, self.weights_) + self.offset_[:, None, None]
        first = first.unflatten(-1, (len(views), -1)).mean(-2).cpu().numpy()  # (E, n, cells)
        own = self.settings.own
        sure = [[regression.confident(s, own * regression.otsu(s)) for s in of] for of in first]
        sure = torch.from_numpy(np.array(sure)).to(cells)  # (E, n, 2, cells), foreground first
        sure = sure.repeat(1, 1, 1, len(views))
        more = regression.moments(cells, sure[:, :, 0], sure[:, :, 1])
        known = regression.Moments(*(part[:, None] for part in self.moments_))
        # (E, n, D) and (E, n)
        weights, offset = regression.solve(known.plus(more), self.penalties_[:, None])
        # The first keeps the second from following its own mistakes.
        share = self.settings.second
        weights = share * weights + (1 - share) * self.weights_[:, None]
        offset = share * offset + (1 - share) * self.offset_[:, None]
        offset = offset - torch.einsum("end,ed->en", weights, self.centre_)
        return sum(regression.scores(maps, weights, offset, size) for maps in views) / len(views)

    def _shares(self, masks: np.ndarray):
        """How much of each cell they fill: masks (E, k, S, S) bool -> (E, k, cells)."""
        import torch

        from cdfss.methods import regression

        there = torch.from_numpy(masks).to(self.given.device).float()
        shares = regression.resized_to(there.flatten(0, 1)[:, None], self.settings.cells)
        return shares.reshape(*masks.shape[:2], -1)

    def _centred(self, cells):
        return cells - self.centre_[:, None, None]

    def _cells(self, views: list[list]):
        """Views' maps (E, n, C, h, w) -> (E, n, views * cells, D)."""
        import torch

        from cdfss.methods import regression

        rows = [regression.cells_of([m.flatten(0, 1) for m in maps], self.settings.cells) for maps in views]
        return torch.cat(rows, 1).unflatten(0, views[0][0].shape[:2])

    def _views(self, pictures: np.ndarray) -> list[list]:
        """Features of (E, n, S, S, 3) and mirrored: per view maps (E, n, C, h, w), mirrored back."""
        import torch
        import torch.nn.functional as F

        from cdfss.backbones.normalisation import normalise
        from cdfss.methods import regression
        from cdfss.running.precision import float32

        network = self.given.network
        episodes, number, size = pictures.shape[:3]
        images = torch.from_numpy(pictures).to(self.given.device).flatten(0, 1)
        images = normalise(images, network.facts)
        views = []
        for mirrored in (False, True):
            maps = []
            for scale in self.settings.scales:
                seen = images.flip(-1) if mirrored else images
                if scale != 1:
                    side = round(scale * size)
                    seen = F.interpolate(seen, (side, side), mode="bicubic", align_corners=False)
                found = [m for of_stride in network(seen) for m in of_stride[-self.settings.maps :]]
                maps += [(m.flip(-1) if mirrored else m).float() for m in found]
            with float32(self.given.device):
                maps = regression.directions(maps, self.settings.features)
            views.append([m.unflatten(0, (episodes, number)) for m in maps])
        return views
