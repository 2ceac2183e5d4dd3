"""Whitening of channels (a rival of paper table 9)."""

from pydantic import Field

from cdfss.methods import contract
from cdfss.methods.modules.contract import Module


class Whitening(Module):
    """ZCA: (Sigma + ridge I)^(-1/2) (x - mu), by mean and covariance of channels over a map's positions.

    A map has fewer positions than channels, so that hardly anything but the ridge tells one position from
    another afterwards: without it all were equally long and equally far from each other.
    """

    family = "correlation"

    class Settings(contract.Settings):
        ridge: contract.Positive = Field(
            1e-5, description="added to the variances; below it directions are not scaled up further"
        )

    def change(self, parameters, prepared):
        # In float64: the small eigenvalues are those that count.
        rows = prepared.double().flatten(-2)  # (..., C, n)
        rows = rows - rows.mean(-1, keepdim=True)
        # X (X^T X / n + ridge I)^(-1/2) is the same, and n x n, not C x C.
        root = _inverse_root(rows.mT @ rows / rows.shape[-1], self.settings.ridge)
        return (rows @ root).view_as(prepared)


def _inverse_root(matrix, ridge: float):
    """(M + ridge I)^(-1/2) of symmetric matrices (..., n, n), with gradients for equal eigenvalues too.

    torch's of eigenvectors divide by differences of eigenvalues, which cancel in this function: between
    eigenvectors i and j its derivative is -dM_ij / (s_i s_j (s_i + s_j)), with s^2 = eigenvalue + ridge.
    """
    import torch

    with torch.no_grad():
        values, vectors = torch.linalg.eigh(matrix)
        roots = (values.clamp(min=0) + ridge).sqrt()[..., None]  # (..., n, 1)
        slopes = -1 / (roots * roots.mT * (roots + roots.mT))
    change = vectors.mT @ (matrix - matrix.detach()) @ vectors  # 0, which has a gradient
    return vectors @ (torch.diag_embed(1 / roots.squeeze(-1)) + slopes * change) @ vectors.mT
