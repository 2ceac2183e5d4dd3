"""Modules in FPTrans, tuned to the labelled supports of an episode (paper section 4.4 and table 4)."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.methods.adam import Adam
from cdfss.methods.fptrans.background import DrawsAlone
from cdfss.methods.fptrans.model import FPTrans, logits_of, resize_logits
from cdfss.methods.modules.chain import Chain

PLACES = ("tokens", "purified")


def chain_for(model: FPTrans, modules, place: str, image_size: int, seed: int) -> Chain:
    """Modules for the maps of a place, in order.

    Raises:
        CdfssError: as `Chain`.
    """
    network = model.encoder.network
    side = -(-image_size // network.patch_embed.patch_size[0]) * (2 if place == "purified" else 1)
    return Chain(modules, network.embed_dim, side, side, seed)


class Adaptation:
    """FPTrans for E episodes, with modules that are tuned step by step to each one's k supports.

    A step is Adam's on the cross-entropy at image size, mean over pixels, between a support's mask and what
    all k supports predict of that support's picture as a query, mean over the supports:
    L = 1/k sum_i CE(y_i, f(x_i; {(x_j, y_j)})). Besides the modules nothing is tuned, so what the blocks
    make of each support as a query is computed once. Episodes do not know of each other.

    Args:
        model: frozen.
        chain: of `chain_for`, left unchanged.
        place: of the modules, on maps of supports and query alike: "tokens", the patches after the last
            block, before the purifier; "purified", after it, before the proxies.
        supports: normalised, (E, k, 3, S, S).
        masks: (E, k, S, S), 1 for foreground, 0 for background.
        seed: of what is drawn, for each episode the same.
        learning_rate: of Adam; or (E,) float64, one for each episode.
    """

    def __init__(
        self,
        model: FPTrans,
        chain: Chain,
        place: str,
        supports: Tensor,
        masks: Tensor,
        seed: int,
        learning_rate: float | Tensor,
    ):
        if place not in PLACES:
            raise CdfssError(f"adapt: place={place!r}; expected one of {', '.join(PLACES)}")
        self.model, self.place, self.supports, self.masks = model, place, supports, masks.long()
        self.chain = copy.deepcopy(chain).requires_grad_(False)
        tuned = []
        for key in chain.tunable:
            for parameter in self.chain.get_submodule(key).parameters():
                parameter.data = parameter.data.repeat(len(masks), *[1] * (parameter.dim() - 1))
                tuned.append(parameter.requires_grad_(True))
        self.optimiser = Adam(tuned, learning_rate)
        with torch.no_grad():
            self.prepared = model.prepare(supports, masks, DrawsAlone(len(masks), seed))
        self._turns: list[Callable[[], Tensor]] | None = None  # made at the first step
        self._losses: list[Tensor] = []

    @property
    def losses(self) -> Tensor:
        """Loss before each step, (E, steps)."""
        if not self._losses:
            return torch.zeros(len(self.masks), 0)
        return torch.stack(self._losses, 1).cpu()

    def step(self) -> None:
        """One step of Adam on the mean loss of each episode's supports.

        Raises:
            CdfssError: when no module has parameters.
        """
        if not self.optimiser.parameters:
            raise CdfssError("adapt: nothing is left to tune: the model has no module with parameters")
        if self._turns is None:
            self._turns = [self._as_query(support) for support in self.supports.unbind(1)]
        losses, gradients = torch.zeros(len(self.masks), device=self.masks.device), None
        for forward, target in zip(self._turns, self.masks.unbind(1)):
            loss = F.cross_entropy(forward(), target, reduction="none").mean((1, 2))
            penalty = self.chain.penalty()
            loss = (loss if penalty is None else loss + penalty) / len(self._turns)
            part = torch.autograd.grad(loss.sum(), self.optimiser.parameters)
            gradients = part if gradients is None else [a + b for a, b in zip(gradients, part)]
            losses = losses + loss.detach()
        self.optimiser.step(gradients)
        self._losses.append(losses)

    @torch.no_grad()
    def segment(self, queries: Tensor) -> Tensor:
        """Logits (E, 2, S, S) of a query of each episode, (E, 3, S, S)."""
        return self._as_query(queries)()

    def _as_query(self, queries: Tensor) -> Callable[[], Tensor]:
        """What gives logits (E, 2, S, S) of queries; all before the first tuned module is done here."""
        model, prepared, size = self.model, self.prepared, queries.shape[-2:]
        with torch.no_grad():
            maps, _ = model.encode(queries, self.supports, prepared)
            if self.place == "purified":
                maps = model.purifier(maps)
            # Episodes stand beside the maps' own dimensions, as their parameters do.
            changed = self.chain.alone(maps.transpose(0, 1), self.chain.tunable)

        def logits() -> Tensor:
            found = changed().transpose(0, 1)
            found = found if self.place == "purified" else model.purifier(found)
            return resize_logits(logits_of(found, prepared).float(), size)

        return logits
