"""A step of the adaptation of modules as a function of tensors alone, run plainly, compiled or replayed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree

from cdfss.errors import CdfssError
from cdfss.methods.adam import Adam, factors_of, moved
from cdfss.methods.frequency import inverse_transform
from cdfss.methods.hsnet.hypercorrelation import SupportPlane
from cdfss.methods.hsnet.information import gaussian_information
from cdfss.methods.hsnet.model import COARSE, HSNet, resize_logits
from cdfss.running import devices
from cdfss.running.precision import products_are_rounded

WARM_UPS = 3  # before a capture, as torch's documentation has it


class Turn(NamedTuple):
    """What the loss of n pairs of each of E episodes depends on, and steps do not change.

    Attributes:
        finer: of stride 8 and 16, what `HypercorrelationLearner.prepare` makes of encodings of n * E.
        mask: of the supports at stride 32, (n * E, 1, h, w).
        plane: the same with the positions inside; None takes all, so that no shape depends on masks.
        target: masks (n * E, S, S) of the queries, which are to be hit, and of those the modules' as float.
    """

    finer: tuple[Tensor, Tensor]
    mask: Tensor
    plane: SupportPlane | None
    target: Tensor
    shown: Tensor


class Constants(NamedTuple):
    """All that steps do not change.

    Attributes:
        frozen: parameters by name that belong to an adaptation and are not tuned.
        prepared: what `Chain.prepared` makes of stride-32 maps (L, k, E, C, h, w).
        turns: together all pairs.
    """

    frozen: dict[str, Tensor]
    prepared: Any
    turns: list[Turn]


class Step(nn.Module):
    """A step of Adam on the mean loss of each episode's pairs (`adaptation.Adaptation`).

    A module for the sake of `torch.func.functional_call`, which puts the parameters it is given in the
    place of the model's.

    Args:
        model: gives what is the same for all episodes; its modules' own parameters are not used.
        trained: names of the modules that are tuned.
        names: of their parameters, in the optimiser's order.
        pairs: (query, support) numbers, those of each turn.
        information: weight of the mutual information.
        learning_rate: None where each step is handed one for each episode.
    """

    def __init__(
        self,
        model: HSNet,
        trained: Sequence[str],
        names: Sequence[str],
        pairs: Sequence[Sequence[tuple[int, int]]],
        information: float,
        learning_rate: float | None,
    ):
        super().__init__()
        self.model = model
        self.trained, self.names, self.pairs = tuple(trained), tuple(names), pairs
        self.information, self.learning_rate = information, learning_rate

    @property
    def facts(self) -> tuple:
        """What makes two steps the same function."""
        fixed = (self.trained, self.names, tuple(map(tuple, self.pairs)), self.information)
        return id(self.model.learner), *fixed, self.learning_rate

    def forward(self, prepared, turn: Turn, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Loss of each episode (E,), the part of one turn."""
        model, number = self.model, sum(map(len, self.pairs))
        maps = model.chain.changed(prepared, self.trained)
        queries, supports = (picked(maps, numbers) for numbers in zip(*pairs, strict=True))
        plane = turn.plane or SupportPlane(turn.mask, None)
        encoded = model.squeeze(COARSE, queries, supports, plane, turn.shown)
        logits = model.learner.mix_prepared(*turn.finer, encoded)
        maps = queries[-1].flatten(0, 1)
        return loss_of(model, logits, maps, turn.target, self.information, len(pairs), number)

    def gradients(self, parameters: Sequence[Tensor], constants: Constants) -> tuple[Tensor, list[Tensor]]:
        """Loss (E,) of each episode, and its gradients."""
        losses, gradients = 0.0, None
        for turn, pairs in zip(constants.turns, self.pairs, strict=True):
            with torch.enable_grad():
                leaves = [parameter.detach().requires_grad_() for parameter in parameters]
                values = constants.frozen | dict(zip(self.names, leaves))
                loss = torch.func.functional_call(
                    self,
                    {f"model.{name}": value for name, value in values.items()},
                    (constants.prepared, turn, pairs),
                    tie_weights=False,
                )
                # Not backward(): it would also fill gradients of parts that are shared and frozen. The
                # gradient of the sum is each episode's own, since none depends on another's parameters.
                part = torch.autograd.grad(loss.sum(), leaves)
            gradients = part if gradients is None else [a + b for a, b in zip(gradients, part)]
            losses = losses + loss.detach()
        return losses, list(gradients)

    def function(
        self, parameters, means, squares, number: Tensor, rates: Tensor | None, constants: Constants
    ) -> tuple:
        """(parameters, means, squares) after a step, and the losses (E,) before it; changes nothing.

        Args:
            number: of the step, from 1, float64.
            rates: of the episodes, (E,) float64; None for `learning_rate`.
        """
        losses, gradients = self.gradients(parameters, constants)
        factors = factors_of(self.learning_rate if rates is None else rates, number)
        with torch.no_grad():
            state = zip(parameters, gradients, means, squares, strict=True)
            new = [moved(*tensors, *factors) for tensors in state]
        return tuple(map(list, zip(*new))), losses


def loss_of(
    model: HSNet,
    logits: Tensor,
    maps: Tensor | None,
    target: Tensor,
    information: float,
    n: int,
    pairs: int,
) -> Tensor:
    """Part of n pairs in the loss (E,) of each of E episodes, which is the mean over all of its pairs.

    Args:
        logits: (n * E, 2, s, s).
        maps: the queries' last stride-32 maps after APM (n * E, C, h, w); None where `information` is 0.
        target: (n * E, S, S).
        information: weight of the maps' mutual information.
    """
    logits = resize_logits(logits, target.shape[-2:])
    loss = F.cross_entropy(logits, target, reduction="none").mean((1, 2))
    if information:
        loss = loss + information * gaussian_information(maps)
    loss = loss.view(n, -1).sum(0) / pairs
    if (penalty := model.chain.penalty()) is not None:
        loss = loss + penalty * (n / pairs)
    return loss


def picked(maps: Tensor, numbers: Sequence[int]) -> Tensor:
    """Maps (L, k, ...) of some supports (L, n, ...): a view where they follow each other.

    Else stacked, whose gradients are sums in a fixed order, as those of an index are not on a GPU.
    """
    if list(numbers) == list(range(numbers[0], numbers[0] + len(numbers))):
        return maps[:, numbers[0] : numbers[-1] + 1]
    each = maps.unbind(1)
    return torch.stack([each[number] for number in numbers], 1)


class Runner:
    """Runs the steps of adaptations of one model, one after the other.

    On a GPU a step is recorded as a CUDA graph: one launch instead of hundreds, and nothing to wait for.
    What is compiled or recorded serves all adaptations of equal shapes, and is let go when one of others
    comes, or with the runner.

    Args:
        compiled: whether torch.compile makes code of the whole step.
        record: what records a call, as `cuda_graph`; None for that on a GPU, and nothing elsewhere.

    Raises:
        CdfssError: when this torch cannot compile a step with its gradients.
    """

    def __init__(self, compiled: bool = False, record: Callable | None = None):
        if compiled:
            _check_compiler()
        self._compiled, self._record = compiled, record
        self._kept: tuple | None = None  # what a recording or code is for, and itself
        self._shape: tuple | None = None
        self._told = self._gave_up = False

    def fixed(self, device: torch.device) -> bool:
        """Whether shapes may not depend on masks."""
        return self._compiled or self._record is not None or device.type != "cpu"

    def expect(self, shape: Sequence[int]) -> None:
        """Let go of what is kept for other numbers of episodes or supports, before memory is needed."""
        if self._shape != tuple(shape):
            self._kept, self._shape = None, tuple(shape)

    def plainly(self, device: torch.device, reason: str) -> None:
        """Say once that steps are not recorded."""
        if not self._told and (self._record is not None or device.type == "cuda"):
            print(f"steps are not captured in a CUDA graph: {reason}", flush=True)
            self._told = True

    def step(self, step: Step, optimiser: Adam, constants: Constants) -> Tensor:
        """Move the optimiser's parameters and moments; losses (E,) before."""
        device = optimiser.parameters[0].device
        state = optimiser.parameters, optimiser.means, optimiser.squares
        plain = self._gave_up
        if own := step.model.chain.own:
            self.plainly(device, f"{own[0]} is not of this package, and may do what a graph cannot hold")
            plain = True
        number = torch.full((), optimiser.steps + 1, dtype=torch.float64, device=device)
        # An input, so that what is recorded serves other rates.
        rates = optimiser.learning_rate if isinstance(optimiser.learning_rate, Tensor) else None
        inputs = (*state, number, rates, constants)
        function = step.function if plain else self._made(step, inputs)
        new, losses = function(*inputs)
        with torch.no_grad():
            for kept, values in zip(state, new, strict=True):
                torch._foreach_copy_(kept, values)
        optimiser.steps += 1
        return losses.clone()

    def _made(self, step: Step, inputs: tuple) -> Callable:
        """The step's function as code, recording or both, from the last time or made now."""
        device = inputs[0][0].device
        record = self._record or (cuda_graph if device.type == "cuda" else None)
        if record is None and not self._compiled:
            return step.function
        shapes = [(t.shape, t.stride(), t.dtype, t.device) for t in tensors_of(inputs)]
        key = step.facts, _pytree.tree_structure(inputs), shapes
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # its memory is needed
            function = _compiled(step.function) if self._compiled else step.function
            if record is not None:
                try:
                    function = Recording(function, inputs, record, step.model)
                except RuntimeError as error:
                    if devices.ran_out_of_memory(error):
                        raise  # fewer episodes may do
                    self.plainly(device, str(error).split("\n")[0])
                    self._gave_up = True
                    return step.function
            self._kept = key, function
        return self._kept[1]


class Recording:
    """A function of nested tensors, recorded once on tensors that stay where they are, and replayed.

    Its results are overwritten by the next call.

    Args:
        function: of shapes and a course that depend on no value.
        inputs: as all calls have them.
        record: as `cuda_graph`.
        model: whose layers keep tensors, which the recording reads, for as long as it lives.
    """

    def __init__(self, function: Callable, inputs: tuple, record: Callable, model: nn.Module):
        self._inputs = _pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), inputs)
        self._constants = inputs[-1]
        self._results, self._replay = record(lambda: function(*self._inputs))
        self._read = [dict(vars(layer)) for layer in model.modules()]

    @torch.no_grad()
    def __call__(self, *inputs):
        changed, kept = inputs, self._inputs
        if inputs[-1] is self._constants:  # they are there
            changed, kept = inputs[:-1], kept[:-1]
        torch._foreach_copy_(tensors_of(kept), tensors_of(changed))
        self._constants = inputs[-1]
        self._replay()
        return self._results


def tensors_of(nested) -> list[Tensor]:
    """All tensors of nested tuples, lists and dictionaries."""
    return [leaf for leaf in _pytree.tree_leaves(nested) if isinstance(leaf, Tensor)]


def cuda_graph(call: Callable) -> tuple[Any, Callable]:
    """What a call returns, and what runs its kernels again, from the same tensors to the same tensors."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    return results, graph.replay


def _check_compiler() -> None:
    import torch._dynamo  # slow to import

    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        raise CdfssError(
            f"compute.compile: torch {torch.__version__} cannot compile a step with its gradients; "
            "use compute.compile: false, or a later torch (2.14 can)"
        )


def _compiled(function: Callable) -> Callable:
    import torch._dynamo

    for constant in (products_are_rounded, inverse_transform):  # which cannot be traced
        torch.compiler.assume_constant_result(constant)

    def run(*inputs):
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return compiled(*inputs)

    compiled = torch.compile(function, fullgraph=True, dynamic=False)
    return run
