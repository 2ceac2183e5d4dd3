"""Ridge regression beside dense matching, and both spread among the cells of a query that are alike."""

from pydantic import Field

from cdfss.methods import ridge


class Settings(ridge.Settings):
    """One configuration for all domains and shots: those of ridge, and what is done with its scores."""

    cells: int = Field(28, ge=2, description="cells per side of a picture, for regression and joints")
    own: float = Field(0.7, ge=0, le=1, description=ridge.Settings.model_fields["own"].description)
    matching: float = Field(
        0.3, ge=0, le=1, description="share of dense matching in the scores; the rest is the regression's"
    )
    nearest: int = Field(
        5, ge=1, description="cells of each class of the supports that a cell is matched to"
    )
    neighbours: int = Field(
        30, ge=1, description="cells of the query that a cell is joined to, those most like it"
    )
    width: float = Field(
        0.05, ge=0.03, le=10, description="difference of cosines that makes a joint weaker by the factor e"
    )
    strength: float = Field(
        8.0, ge=0, le=1000, description="weight of agreement between joined cells, against their own scores"
    )


class Propagation(ridge.Ridge):
    """Ridge; then cells are matched to the supports' one by one, and scores spread in the query.

    A linear score of single cells knows nothing of objects that supports show only in part, or whose
    features lie on both sides of others'; the nearest cells do. And cells that look alike in one picture
    are mostly of one class, even where neither resembles the supports.
    """

    Settings = Settings

    def _learn(self, views: list[list], foreground, background) -> None:
        super()._learn(views, foreground, background)
        self.supports_ = self._places(views).flatten(1, 2)  # (E, M, D)
        self.shares_ = foreground.flatten(1), background.flatten(1)  # (E, M)

    def _scores(self, views: list[list], size: int):
        import torch.nn.functional as F

        from cdfss.methods import affinity, regression

        how, side = self.settings, self.settings.cells
        pixels = super()._scores(views, size)  # (E, n, size, size)
        before = regression.resized_to(pixels, side).flatten(2)  # (E, n, cells)
        places = self._places(views)
        matched = affinity.matching(places, self.supports_, *self.shares_, how.nearest)
        # Cosines differ by much less than scores do, and by how much hangs on the picture.
        scale = before.std(-1, keepdim=True) / matched.std(-1, keepdim=True).clamp(min=1e-6)
        after = (1 - how.matching) * before + how.matching * scale * matched
        after = affinity.propagated(
            after, affinity.affinities(places, how.neighbours, how.width), how.strength
        )
        # What is added is as coarse as cells are; the regression's finer scores stay below it.
        change = (after - before).unflatten(-1, (side, side))
        return pixels + F.interpolate(change, (size, size), mode="bilinear", align_corners=False)

    def _places(self, views: list[list]):
        """Unit vectors (E, n, cells, D) of the maps of the last scale, the mean of all views."""
        import torch.nn.functional as F

        from cdfss.methods import regression

        number = len(views[0]) // len(self.settings.scales)
        rows = [
            regression.cells_of([m.flatten(0, 1) for m in maps[-number:]], self.settings.cells)
            for maps in views
        ]
        return F.normalize(sum(rows), dim=-1).unflatten(0, views[0][0].shape[:2])
