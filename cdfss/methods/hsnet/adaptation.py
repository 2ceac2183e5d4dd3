"""Adaptation of a model to the labelled supports of an episode (paper section 4.4)."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.methods.adam import Adam
from cdfss.methods.hsnet.hypercorrelation import SupportPlane, resize_masks
from cdfss.methods.hsnet.model import COARSE, FINE, MIDDLE, HSNet, resize_logits
from cdfss.methods.hsnet.step import Constants, Runner, Step, Turn, loss_of, picked
from cdfss.methods.modules import known

RULES = ("published", "majority", "mean")  # by which the predictions from k supports become one mask
PAIRS_AT_ONCE = 5  # of an episode in a step; more are summed up in turns, which bounds the memory


def adapt(
    model: HSNet,
    support_images: Tensor,
    support_masks: Tensor,
    steps: int,
    learning_rate: float | Tensor,
    *,
    trained: Sequence[str] | None = None,
    pairs: str = "self",
    mutual_information: float = 0.0,
    optimiser: "Adam | None" = None,
    vote: str = "published",
    runner: Runner | None = None,
) -> "Adaptation":
    """Tune a model, from its present values, on the supports alone: an `Adaptation` after some steps.

    Args:
        steps: number of Adam steps; 0 keeps the present values.
        others: those of `Adaptation`.

    Raises:
        CdfssError: for negative steps, steps of a model with nothing to tune, and as `Adaptation`.
    """
    if steps < 0:
        raise CdfssError(f"adapt: steps={steps}; expected 0 or more")
    adaptation = Adaptation(
        model,
        support_images,
        support_masks,
        learning_rate,
        trained=trained,
        pairs=pairs,
        mutual_information=mutual_information,
        optimiser=optimiser,
        vote=vote,
        runner=runner,
    )
    for _ in range(steps):
        adaptation.step()
    return adaptation


class Adaptation:
    """A model that is tuned, step by step, to the k labelled supports of an episode, or of each of E.

    A step is Adam's on the cross-entropy at image size between a support's mask and its prediction
    from another labelled support (or from itself), averaged over the pairs and their pixels, to
    which the mutual information of the channels may be added. While backbone and learner are frozen
    only the stride-32 maps change between steps, so everything else (backbone, the two finer
    encodings, spectra) is computed once.

    Episodes of a batch do not know of each other: each has parameters of modules and moments of its
    own, and the numbers are those of one by one, up to rounding.

    Args:
        model: left unchanged.
        support_images: normalised, (k, 3, S, S), or (E, k, 3, S, S) for a batch.
        support_masks: (k, S, S) or (E, k, S, S), 0 and 1.
        learning_rate: of Adam; or (E,) float64, one for each episode of a batch.
        trained: `HSNet.parts` that are tuned; None for all modules that have parameters.
            A trained backbone keeps its batch statistics.
        pairs: "self", every support is its own query (k pairs, the paper's way), or
            "leave_one_out", every support is predicted from each other one (k (k - 1) pairs; the
            self-pair for k = 1).
        mutual_information: weight that `information.gaussian_information` of the query's last
            stride-32 map, after APM, has in the loss beside the cross-entropy (paper table 5).
        optimiser: `optimiser` of an adaptation of the same parts, to go on with its moments; None
            starts anew.
        vote: rule of RULES by which the supports' predictions become one mask: "published", at least half
            of the largest number of votes that any pixel got (HSNet, k-shot inference); "majority", at
            least half of the k supports; "mean", a mean probability of at least 0.5.
        runner: of the steps, shared with other adaptations of the model; None for one of its own.

    Attributes:
        model: the tuned model; what is not trained is shared with the model it came from. For a
            batch its modules hold the parameters of E episodes.
        optimiser: Adam as the last step left it.

    Raises:
        CdfssError: when shapes differ, a part, kind of pairs or rule is unknown or not there, the model
            holds other episodes, or learner or backbone are to be trained for several at once.
    """

    def __init__(
        self,
        model: HSNet,
        support_images: Tensor,
        support_masks: Tensor,
        learning_rate: float | Tensor,
        *,
        trained: Sequence[str] | None = None,
        pairs: str = "self",
        mutual_information: float = 0.0,
        optimiser: "Adam | None" = None,
        vote: str = "published",
        runner: Runner | None = None,
    ):
        *batch, k, _, height, width = support_images.shape if support_images.dim() in (4, 5) else [0] * 4
        if k == 0 or 0 in batch or support_masks.shape != (*batch, k, height, width):
            raise CdfssError(
                f"adapt: support images are {list(support_images.shape)}, masks "
                f"{list(support_masks.shape)}; expected (k, 3, S, S) and (k, S, S) with k of at least 1, "
                "or both with a leading dimension of episodes"
            )
        if not ((support_masks == 0) | (support_masks == 1)).all():
            raise CdfssError("adapt: support masks hold other values than 0 and 1; threshold them first")
        if not mutual_information >= 0:
            raise CdfssError(
                f"adapt: mutual_information={mutual_information}; expected a weight of 0 or more"
            )
        if isinstance(learning_rate, Tensor) and list(learning_rate.shape) != batch:
            raise CdfssError(
                f"adapt: learning rates are {list(learning_rate.shape)}; expected a number, or one for "
                f"each episode of a batch, {batch or 'and this is none'}"
            )
        if vote not in RULES:
            raise CdfssError(f"adapt: vote={vote!r}; expected 'published', 'majority' or 'mean'")
        self._rule = vote
        self._pairs, self._information = support_pairs(k, pairs), mutual_information
        self._trained = _checked_parts(model, trained)
        self._whole = bool(known.WHOLE & set(self._trained))
        if batch and batch[0] > 1 and self._whole:
            raise CdfssError("adapt: learner and backbone are tuned for one episode at a time, not a batch")
        held = model.chain.episodes
        if held > 1 and batch != [held]:
            there = f"{batch[0]} episodes" if batch else "one episode"
            raise CdfssError(f"adapt: the model was tuned to {held} episodes, the supports are of {there}")
        self._batched, self._first = bool(batch), model
        self.model, parameters = _fork(model, self._trained, batch)
        self.optimiser = Adam(parameters, learning_rate, optimiser)
        self._runner = runner or Runner()
        self._runner.expect(support_masks.shape)
        # Supports outermost, episodes inside, so that each support of all episodes is a view.
        self._masks = support_masks.transpose(0, 1) if batch else support_masks[:, None]  # (k, E, S, S)
        self._images = support_images.transpose(0, 1).flatten(0, 1) if batch else support_images
        self._features = self.model.features(self._images)  # maps (k * E, C, h, w)
        self._constants: Constants | None = None  # made at the first step
        self._losses: list[Tensor] = []

    def anew(self, learning_rate: float | Tensor) -> "Adaptation":
        """The same before its first step, by other rates; what these do not change is not made again."""
        if not self._whole:
            self._kept()
        other = copy.copy(self)
        vars(other).pop("_step", None)  # it may hold a rate
        batch = [self._masks.shape[1]] if self._batched else []
        other.model, parameters = _fork(self._first, self._trained, batch)
        other.optimiser, other._losses = Adam(parameters, learning_rate), []
        return other

    @property
    def losses(self) -> Tensor:
        """Loss before each step, (steps,), or (E, steps) for a batch."""
        if not self._losses:
            losses = torch.zeros(self._masks.shape[1], 0)
        else:
            losses = torch.stack(self._losses, 1).cpu()
        return losses if self._batched else losses[0]

    def step(self) -> None:
        """One step of Adam on the mean loss of each episode's pairs.

        Raises:
            CdfssError: when there is nothing to tune, or pictures are not of the size that modules are for.
        """
        if not self._trained:
            raise CdfssError(
                "adapt: nothing is left to tune: trained names no part, or the model has no module with "
                "parameters; trained=['learner'] or ['backbone'] tunes the rest"
            )
        if self._whole:
            reason = f"{' and '.join(sorted(known.WHOLE & set(self._trained)))} is tuned"
            self._runner.plainly(self._masks.device, reason)
            losses, gradients = self._losses_and_gradients()
            self.optimiser.step(gradients)
        else:
            losses = self._runner.step(self._step, self.optimiser, self._kept())
        self._losses.append(losses)
        if "backbone" in self._trained:
            self._features = None  # of the weights before this step

    def _losses_and_gradients(self) -> tuple[Tensor, list[Tensor]]:
        """Mean loss (E,) of each episode's pairs, and its gradients."""
        if self._whole:
            return self._of_whole_model()
        return self._step.gradients(self.optimiser.parameters, self._kept())

    def resume(self, values: dict) -> None:
        """Take up the values that the steps of another adaptation gave its parameters.

        Raises:
            CdfssError: when they are of other parts.
        """
        self.optimiser.restore(values)
        if "backbone" in self._trained:
            self._features = None  # of the weights before

    def predict(self, query: Tensor, truth: Tensor | None = None) -> Tensor:
        """Masks of `segment`."""
        return self.segment(query, truth).masks

    @torch.no_grad()
    def segment(self, query: Tensor, truth: Tensor | None = None) -> "Segmentation":
        """Segment normalised query images (B, 3, S, S); for a batch one an episode.

        Each support votes with its own prediction, and the rule makes one mask of them.

        Args:
            truth: masks of the queries (B, S, S), for modules that are shown them.
        """
        k, episodes = self._masks.shape[:2]
        if self._batched and len(query) != episodes:
            raise CdfssError(f"predict: {len(query)} queries for {episodes} episodes; expected one each")
        features = self.model.features(query)
        features[COARSE] = self.model.filtered(features[COARSE])
        votes = torch.zeros(len(query), *query.shape[-2:], dtype=torch.long, device=query.device)
        probabilities = torch.zeros(votes.shape, device=query.device)
        for support, mask in self.supports(len(query)):
            logits = resize_logits(self.model.compare(features, support, mask, truth), query.shape[-2:])
            background, foreground = logits.unbind(1)
            votes = votes + (foreground > background)
            probabilities = probabilities + (foreground - background).sigmoid() / k
        seen = resize_masks(self._masks.flatten(0, 1), features[COARSE].shape[-2:]).flatten(1).any(1)
        unseen = (~seen).view(k, episodes).sum(0).expand(len(query))
        return Segmentation.of(votes, probabilities, k, self._rule, unseen)

    @torch.no_grad()
    def supports(self, queries: int) -> Iterator[tuple[list, Tensor]]:
        """Pyramid, stride 32 `filtered`, and mask (B, S, S) of each of the k supports, for B queries.

        A single episode's support serves every query.
        """
        if self._features is None:
            self._features = self.model.features(self._images)
        k, episodes = self._masks.shape[:2]
        split = [[m.unflatten(0, (k, episodes)) for m in maps] for maps in self._features]
        for shot in range(k):
            support = [[m[shot].expand(queries, -1, -1, -1) for m in maps] for maps in split]
            support[COARSE] = self.model.filtered(support[COARSE])
            yield support, self._masks[shot].expand(queries, -1, -1)

    @cached_property
    def _step(self) -> Step:
        rate = self.optimiser.learning_rate
        return Step(
            self.model,
            self._trained,
            [name for name, _ in self._own_parameters(tuned=True)],
            [
                self._pairs[begin : begin + PAIRS_AT_ONCE]
                for begin in range(0, len(self._pairs), PAIRS_AT_ONCE)
            ],
            self._information,
            None if isinstance(rate, Tensor) else rate,
        )

    def _own_parameters(self, tuned: bool) -> list[tuple[str, Tensor]]:
        """Parameters by name beside learner and backbone, those that are tuned or all others."""
        ids = {id(parameter) for parameter in self.optimiser.parameters}
        named = self.model.named_parameters()
        own = [(name, p) for name, p in named if name.split(".")[0] not in known.WHOLE]
        return [(name, p) for name, p in own if (id(p) in ids) == tuned]

    @torch.no_grad()
    def _kept(self) -> Constants:
        """What steps of modules do not change: all but the stride-32 maps."""
        if self._constants is None:
            # (L, k, E, C, h, w): the parameters of E episodes are broadcast to the dimensions before.
            coarse = torch.stack(self._features[COARSE]).unflatten(1, self._masks.shape[:2])
            self._constants = Constants(
                {name: parameter.detach() for name, parameter in self._own_parameters(tuned=False)},
                self.model.chain.prepared(coarse, self._trained),
                [self._turn(pairs, coarse.shape[-2:]) for pairs in self._step.pairs],
            )
        return self._constants

    def _turn(self, pairs, size) -> Turn:
        queries, supports = (picked(self._masks[None], numbers)[0] for numbers in zip(*pairs))
        queries, supports = queries.flatten(0, 1), supports.flatten(0, 1)  # (n * E, S, S)
        fixed = self._runner.fixed(supports.device)
        plane = None if fixed else SupportPlane.of(supports, size)
        fine, middle = (torch.cat([self._encode(level, *p) for p in pairs]) for level in (FINE, MIDDLE))
        finer = self.model.learner.prepare(fine, middle)
        # The "query" is a support, whose mask is known.
        return Turn(finer, resize_masks(supports, size), plane, queries.long(), queries)

    def _encode(self, level: int, query: int, support: int) -> Tensor:
        """Encoding of one stride for one pair: one at a time, since the stride-8 correlations are large."""
        episodes = self._masks.shape[1]
        query_maps, support_maps = (
            [m[number * episodes : (number + 1) * episodes] for m in self._features[level]]
            for number in (query, support)
        )
        plane = SupportPlane.of(self._masks[support], support_maps[0].shape[-2:])
        return self.model.squeeze(level, query_maps, support_maps, plane)

    @torch.enable_grad()
    def _of_whole_model(self) -> tuple[Tensor, list[Tensor]]:
        """All again, a pair at a time: the learner trains, or the backbone too."""
        model, masks, losses, gradients = self.model, self._masks, 0.0, None
        for query, support in self._pairs:
            maps = self._pyramid(query)
            others = maps if support == query else self._pyramid(support)
            logits = model.segment(maps, others, masks[support], masks[query])
            last = model.filtered(maps[COARSE][-1:])[0] if self._information else None
            loss = loss_of(model, logits, last, masks[query].long(), self._information, 1, len(self._pairs))
            part = torch.autograd.grad(loss.sum(), self.optimiser.parameters)
            gradients = part if gradients is None else [a + b for a, b in zip(gradients, part)]
            losses = losses + loss.detach()
        return losses, gradients

    def _pyramid(self, number: int) -> list[list[Tensor]]:
        if "backbone" in self._trained:
            return self.model.backbone(self._images[number : number + 1])
        return [[m[number : number + 1] for m in maps] for maps in self._features]


@dataclass
class Segmentation:
    """What the supports of an episode make of each of B queries.

    Attributes:
        masks: (B, S, S) in {0, 1}.
        probabilities: of foreground in 0..1, (B, S, S): the mean over the supports.
        most_votes: (B,), the largest number of votes, of the k supports, that a pixel got.
        voted_pixels: (B,), pixels whose label by the published rule is not that of a majority. There are
            some only where `most_votes` is neither 0 nor k, and they are foreground by the published rule.
        supports_unseen: (B,), supports whose mask holds no stride-32 position: all their stride-32
            correlations are 0, whatever the modules are, so that these neither learn from them nor change
            what is predicted from them.
    """

    masks: Tensor
    probabilities: Tensor
    most_votes: Tensor
    voted_pixels: Tensor
    supports_unseen: Tensor

    @classmethod
    def of(cls, votes: Tensor, probabilities: Tensor, k: int, rule: str, unseen: Tensor) -> "Segmentation":
        """From votes and mean probabilities (B, S, S) of k supports, by a rule of RULES."""
        published, majority = vote(votes), vote(votes, k)
        if rule == "mean":
            # Votes decide at 0.5, which is also what tiny differences of the logits are rounded to: the
            # mean of one support is its own prediction.
            masks = torch.where(probabilities == 0.5, majority, (probabilities > 0.5).long())
        else:
            masks = majority if rule == "majority" else published
        decided = (published != majority).flatten(1).sum(1)
        return cls(masks, probabilities, votes.flatten(1).max(1).values, decided, unseen)


def vote(votes: Tensor, most: int | None = None) -> Tensor:
    """Vote counts (B, S, S) -> masks (B, S, S) in {0, 1}: votes / most >= 0.5.

    Args:
        most: k for a fixed majority of the supports (of an even k, half of them are one); None for the
            largest number of votes that a pixel of the mask got, but at least 1.
    """
    if most is not None:
        return (2 * votes >= most).long()
    most = votes.flatten(1).max(1).values.clamp(min=1)
    return (2 * votes >= most[:, None, None]).long()


def support_pairs(k: int, kind: str) -> list[tuple[int, int]]:
    """(query, support) numbers of the pairs that k supports are tuned on.

    Raises:
        CdfssError: for a kind other than "self" and "leave_one_out".
    """
    if kind not in ("self", "leave_one_out"):
        raise CdfssError(f"adapt: pairs={kind!r}; expected 'self' or 'leave_one_out'")
    if kind == "self" or k == 1:
        return [(i, i) for i in range(k)]
    return [(i, j) for i in range(k) for j in range(k) if i != j]


def _checked_parts(model: HSNet, trained: Sequence[str] | None) -> list[str]:
    """The parts to train, known and there."""
    if trained is None:
        return model.chain.tunable
    if isinstance(trained, str) or len(set(trained)) != len(trained):
        raise CdfssError(f"adapt: trained={trained!r}; expected a list of parts, each named once")
    for part in trained:
        model.part(part)
    return list(trained)


def _fork(model: HSNet, trained: Sequence[str], batch: Sequence[int]) -> tuple[HSNet, list[Tensor]]:
    """A model with copies of the trained parts, all else shared, and the parameters to tune.

    With a batch of [E] episodes the trained modules hold E copies, along their first dimension.
    """
    parts = {name: model.part(name) for name in trained}
    used = {id(module) for part in parts.values() for module in part.modules()}
    shared = {
        id(model.chain.get_submodule(key)): model.chain.get_submodule(key) for key in model.chain.parts
    }
    shared |= {id(module): module for module in (model.learner, model.backbone)}
    fork = copy.deepcopy(model, memo={key: module for key, module in shared.items() if key not in used})
    parameters = []
    for name in trained:
        for parameter in fork.part(name).requires_grad_(True).parameters():
            if batch and name not in known.WHOLE and len(parameter) == 1:
                parameter.data = parameter.data.repeat(*batch, *[1] * (parameter.dim() - 1))
            parameters.append(parameter)
    return fork, parameters
