"""Adam for a few parameters and steps."""

import math

import torch
from torch import Tensor

from cdfss.errors import CdfssError


class Adam:
    """Adam with torch's defaults and, number for number, its arithmetic.

    torch.optim loads the compiler on first use, which takes longer than a small adaptation.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, parameters: list[Tensor], learning_rate: float, before: "Adam | None" = None):
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
        first, second = self.BETAS
        size = self.learning_rate / (1 - first**self.steps)
        scale = math.sqrt(1 - second**self.steps)
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self.means, self.squares, strict=True
        ):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            parameter.addcdiv_(mean, (square.sqrt() / scale).add_(self.EPSILON), value=-size)
