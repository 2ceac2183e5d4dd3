"""Adam for a few parameters and steps."""

import numpy as np
import torch
from torch import Tensor

from cdfss.errors import CdfssError


class Adam:
    """Adam with torch's defaults and, number for number, its arithmetic.

    torch.optim loads the compiler on first use, which takes longer than a small adaptation.

    Args:
        learning_rate: one for all, or (E,), one for each of E episodes, whose parameters lie along the
            first dimension of all of them.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(
        self, parameters: list[Tensor], learning_rate: float | Tensor, before: "Adam | None" = None
    ):
        """Moments start at zero, or at copies of those of `before`.

        Raises:
            CdfssError: when `before` is of parameters of other shapes.
        """
        if before is not None and [m.shape for m in before.means] != [p.shape for p in parameters]:
            raise CdfssError(
                "adapt: the optimiser is of an adaptation of other parts, or of another number of "
                "episodes, than those trained now"
            )
        self.parameters, self.learning_rate = parameters, learning_rate
        if before is None:
            self.steps = 0
            self.means = [torch.zeros_like(parameter) for parameter in parameters]
            self.squares = [torch.zeros_like(parameter) for parameter in parameters]
        else:
            self.steps = before.steps
            self.means = [mean.clone() for mean in before.means]
            self.squares = [square.clone() for square in before.squares]

    @torch.no_grad()
    def step(self, gradients) -> None:
        """Move every parameter in place by its gradient."""
        self.steps += 1
        factors = factors_of(self.learning_rate, self.steps)
        for tensors in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            parameter, _, mean, square = tensors
            for kept, new in zip((parameter, mean, square), moved(*tensors, *factors), strict=True):
                kept.copy_(new)

    def values(self) -> dict[str, np.ndarray]:
        """The parameters as they are, by their numbers."""
        return {str(number): p.detach().cpu().numpy() for number, p in enumerate(self.parameters)}

    @torch.no_grad()
    def restore(self, values: dict[str, np.ndarray]) -> None:
        """Give parameters the values that `values` of another one had.

        Raises:
            CdfssError: when there are others, or of other shapes.
        """
        shapes = {str(number): tuple(p.shape) for number, p in enumerate(self.parameters)}
        if {key: value.shape for key, value in values.items()} != shapes:
            raise CdfssError("adapt: the values are of an adaptation of other parts than those tuned here")
        for number, parameter in enumerate(self.parameters):
            parameter.copy_(torch.from_numpy(values[str(number)]))


def factors_of(learning_rate: float | Tensor, number) -> tuple:
    """Size of a step, (E,) as the learning rates are, and scale of its squares.

    Args:
        number: of the step, from 1; a tensor where it is to change between replays. In float32 a power of
            0.999 would cost four digits.
    """
    first, second = Adam.BETAS
    return learning_rate / (1 - first**number), (1 - second**number) ** 0.5


def moved(parameter: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, size, scale) -> tuple:
    """Parameter and moments after a step with `factors_of` it, as new tensors."""
    first, second = Adam.BETAS
    if isinstance(size, Tensor) and size.dim():  # (E,) -> (E, 1, ...)
        size = size.to(mean.dtype).view(-1, *[1] * (mean.dim() - 1))
    mean = mean.lerp(gradient, 1 - first)
    square = (square * second).addcmul(gradient, gradient, value=1 - second)
    return parameter - size * mean / (square.sqrt() / scale + Adam.EPSILON), mean, square
