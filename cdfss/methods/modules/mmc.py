"""MMC, transformations by mean magnitudes of channels (Luo et al., ICML 2022; rivals of paper table 9)."""

from pydantic import Field

from cdfss.methods import contract
from cdfss.methods.modules.contract import Module

SMALLEST = 1e-5  # of |x| in the published code, against a division by zero
EPSILON = 1e-12  # of deviations and differences there


class SimpleTransformation(Module):
    """sign(x) (g(|x|) - g(0)) of unit vectors x, with g(a) = 1 / ln^exponent(1 / (a + 1e-5) + 1).

    g(0) is what the branch of the other sign leaves in the published code, so that there is no leap at 0.
    That code has pooled, small values, and does not normalise them before. Maps have any scale, and above 1
    g is about a^exponent, which makes large values larger, while it is meant to make channels more alike.
    So the vector of each position is brought to length 1 first.
    """

    family = "correlation"

    class Settings(contract.Settings):
        exponent: contract.Positive = Field(1.3, description="of the logarithm (1.3 in the published code)")

    def change(self, parameters, prepared):
        from torch.nn import functional as F

        def g(magnitude):
            return (1 / (magnitude + SMALLEST)).log1p().pow(-self.settings.exponent)

        maps = F.normalize(prepared.float(), dim=-3)
        return maps.sign() * (g(maps.abs()) - g(maps.new_zeros(())))


class OracleTransformation(Module):
    """Channels by how well they tell the query's foreground from its background, which its mask shows.

    Of the query's unit vectors, a channel has mean m and deviation s in foreground (1) and background (2);
    w = 2 / (s1 / |m1 - m2| + s2 / |m1 - m2|), scaled to length 1 over channels; query and support are
    multiplied by w / mean |x|. A query all of one class has no such difference and leaves both unchanged.

    The published one has two classes of pictures, and statistics of all test pictures.
    """

    family = "correlation"
    of_pairs = True
    oracle = True

    def change_pair(self, parameters, query, support, query_mask, support_mask):
        from torch.nn import functional as F

        unit = F.normalize(query.float(), dim=-3)
        shares = query_mask.float(), 1 - query_mask.float()
        (mean, deviation), (other_mean, other_deviation) = (_statistics(unit, share) for share in shares)
        difference = (mean - other_mean).abs() + EPSILON
        weights = F.normalize(2 * difference / (deviation + other_deviation + 2 * EPSILON), dim=-3)
        magnitude = unit.abs().mean((-2, -1), keepdim=True)
        factors = magnitude * weights / (magnitude + EPSILON) ** 2  # 0 for a channel that is 0
        both = (shares[0].sum((-2, -1), keepdim=True) > 0) & (shares[1].sum((-2, -1), keepdim=True) > 0)
        factors = factors.where(both, 1.0)
        return query * factors, support * factors


def _statistics(maps, share):
    """Mean and deviation of channels (..., C, 1, 1), each position counted by its share (..., 1, h, w)."""
    share = share / share.sum((-2, -1), keepdim=True).clamp(min=EPSILON)
    mean = (maps * share).sum((-2, -1), keepdim=True)
    variance = ((maps - mean) ** 2 * share).sum((-2, -1), keepdim=True)
    return mean, variance.clamp(min=EPSILON**2).sqrt()  # whose slope is finite at 0 as well
