"""What a method is: it is fitted to k labelled supports, and then predicts masks of queries.

Pictures are uint8 RGB and masks bool, both NumPy. Evaluation and the workflow know methods by what is
here, and nothing else of them; docs/how-to/own-method.md has a worked example of one's own.

No module with a method imports torch at its top, but in its functions: a plan looks at `needs` and
`Settings` of every method of a run, and starts without torch.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cdfss.errors import CdfssError

if TYPE_CHECKING:
    import torch

    from cdfss.backbones.network import Backbone

# Types of settings.
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]

# What a method may count of a query, as whole numbers: rows have a column for each.
COUNTS = (
    "most_votes",  # the largest number that a pixel got, of the k supports'
    "voted_pixels",  # whose label half of `most_votes` decides otherwise than half of the k supports
    "supports_unseen",  # whose mask holds no position of the maps that the method can change
)


class Settings(BaseModel):
    """Settings of a method: fields with type, unit, default and allowed values.

    In a configuration they stand beside `title` and `method` in a variant, and are checked like all keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def of_domain(self, domain: str, defaults: dict) -> dict:
        """The settings as plain values, as they are on one domain of a run.

        Args:
            defaults: the run's `adaptation`, for settings that are left empty.
        """
        return self.model_dump(mode="json")

    @property
    def goes_on(self) -> bool:
        """Whether an episode depends on those before it, so that a list cannot be split."""
        return False

    @property
    def oracle(self) -> bool:
        """Whether it is shown the masks of queries, which nobody has; `predict` gets them then."""
        return False

    def codes(self) -> dict[str, str]:
        """Digests of code that the settings name besides the method's own, by its name."""
        return {}

    @property
    def own_code(self) -> bool:
        """Whether some of that is a user's own."""
        return False


class Shared:
    """What the methods of a job have in common: networks and source models that are made once.

    Args:
        several: whether there are several methods, so that networks remember the maps that they gave.
    """

    def __init__(self, several: bool = False):
        self.several = several
        self._made: dict[Hashable, Any] = {}

    def once(self, key: Hashable, make: Callable):
        """What `make()` returned when it was first asked for by this key. Nobody may change it."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def remembering(self, network: "Backbone") -> "Backbone":
        """A network that gives several methods the maps of the same pictures, computed once."""
        if self.several and network.memory is None:
            from cdfss.backbones.memory import Memory

            network.memory = Memory()
        return network


@dataclass(frozen=True)
class Given:
    """What a run gives to a method.

    Attributes:
        image_size: S, pixels.
        seed: of everything that is drawn.
        device: to compute on; None for a method that needs nothing.
        backbone: name of the frozen network; None unless the method needs one.
        weights: file of its ImageNet weights; None where they are an installed package.
        checkpoint: file of the source-trained model; None unless the method needs it.
        compile: whether torch.compile may be used.
        shared: with the other methods of a job.
    """

    image_size: int
    seed: int = 0
    device: "torch.device | None" = None
    backbone: str | None = None
    weights: str | Path | None = None
    checkpoint: str | Path | None = None
    compile: bool = False
    shared: Shared = field(default_factory=Shared, compare=False, repr=False)

    @property
    def network(self) -> "Backbone":
        """The frozen backbone with its ImageNet weights, on the device."""
        if self.backbone is None:
            raise CdfssError('the method asks for given.network; let it say needs = "backbone"')
        return self.shared.once(("network", self.backbone, self.weights, self.device), self._network)

    def _network(self) -> "Backbone":
        assert self.backbone is not None  # `network` says so in words
        import torch

        from cdfss.backbones.network import build
        from cdfss.backbones.weights import load_imagenet

        with torch.inference_mode(False):  # whoever is the first to ask, others may tune a copy
            network = build(self.backbone)
            load_imagenet(network, self.weights)
            return self.shared.remembering(network.to(self.device))


@dataclass
class Prediction:
    """What a method says of queries.

    Attributes:
        probabilities: of foreground in 0..1, (n, S, S); of a batch of episodes (E, n, S, S).
        masks: of the same shape, bool; where the probability is at least 0.5, if they are not given.
        counts: whole numbers of 0 or more, one a query, (n,) or (E, n), by names of COUNTS; always the same
            names, all, some or none.
    """

    probabilities: np.ndarray
    masks: np.ndarray | None = None
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        if self.masks is None:
            self.masks = np.asarray(self.probabilities) >= 0.5


class Method:
    """A way to segment queries, given k labelled supports. Derive yours from it.

    Attributes:
        needs: what it is given: "nothing"; a "device" to compute on; a frozen "backbone" besides; or
            besides that the "source" model, which `host`'s training on the source makes.
        host: of a method that needs "source": whose source model, a name of `cdfss.methods.hosts.HOSTS`.
        batched: whether `fit` and `predict` take E episodes at once, which know nothing of each other.
            Else they are called for one after the other.
        least_supports: k that it needs at least.
        looks: whether it looks at pictures; else they are not read, and it is handed black ones.
        negatives: whether it learns from supports without foreground too, beside others that have some.
        takes_unknown: whether `fit` takes `unknown` besides, (k, S, S) or (E, k, S, S) bool: pixels of the
            supports of which nobody says what they are, background in `masks`. Else they stay background.
        Settings: its settings, derived from `contract.Settings`.
        most_at_once: episodes that a batch may have, where the settings bound it.
        parameters: numbers of those that are added to the source model, and of those that are tuned.
        losses: before each step of the last `fit`, (steps,), or (E, steps) where `batched`.
        rates: learning rates that the last `fit` chose, (E,) where `batched`; None where they are settings.
    """

    needs: ClassVar[Literal["nothing", "device", "backbone", "source"]] = "nothing"
    host: ClassVar[str] = "hsnet"
    batched: ClassVar[bool] = False
    least_supports: ClassVar[int] = 1
    looks: ClassVar[bool] = True
    negatives: ClassVar[bool] = False
    takes_unknown: ClassVar[bool] = False
    Settings: ClassVar[type[Settings]] = Settings
    most_at_once: int | None = None
    parameters: tuple[int, int] = (0, 0)
    losses: np.ndarray | None = None
    rates: np.ndarray | None = None

    def __init__(self, settings: Settings, given: Given):  # type: ignore[valid-type]
        self.settings, self.given = settings, given

    def fit(self, pictures: np.ndarray, masks: np.ndarray) -> None:
        """Learn from the supports of an episode.

        Args:
            pictures: (k, S, S, 3) uint8; where `batched`, (E, k, S, S, 3). Not to be changed.
            masks: (k, S, S) bool, true for foreground; where `batched`, (E, k, S, S). Not to be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit(pictures, masks)")

    def predict(self, pictures: np.ndarray) -> Prediction:
        """Probabilities and masks of n queries, by what the last `fit` learnt.

        Where the settings say `oracle`, masks of the queries follow, (n, S, S) or (E, n, S, S) bool.

        Args:
            pictures: (n, S, S, 3) uint8; where `batched`, (E, n, S, S, 3). Not to be changed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict(pictures)")

    def learnt(self) -> dict[str, np.ndarray]:
        """What the last `fit` learnt by steps, of one episode: arrays for a file, by names.

        Nothing, where `fit` is as quick as reading them: it is called again then.
        """
        return {}

    def recall(self, pictures: np.ndarray, masks: np.ndarray, learnt: dict[str, np.ndarray]) -> None:
        """Stand as after the `fit` to these supports from which `learnt` is, without learning again.

        Args:
            pictures, masks: as `fit`, of one episode.
            learnt: of `learnt`, never empty.
        """
        raise NotImplementedError(f"{type(self).__name__} has no recall(pictures, masks, learnt)")

    def forget(self) -> None:
        """Let go of what the last `fit` learnt, as far as it takes memory and no later one needs it.

        Called when a batch is done: the methods of a job live side by side.
        """


def refuse_one_class(masks: np.ndarray, unknown: np.ndarray | None = None) -> None:
    """Supports of an episode (E, k, S, S) without any foreground, or nothing but it, show no object.

    Args:
        unknown: pixels that are neither, of the same shape.

    Raises:
        CdfssError: names the episode and what to do.
    """
    either = masks if unknown is None else masks | unknown
    for number, foreground in enumerate(masks.reshape(len(masks), -1)):
        if either[number].all() or not foreground.any():
            what = "nothing but foreground" if foreground.any() else "no foreground"
            raise CdfssError(
                f"supports of episode {number} of the batch: their masks ({masks.shape[1]} of "
                f"{masks.shape[2]} x {masks.shape[3]} pixels) hold {what}; both classes are needed. Check "
                "the masks (foreground is true), or choose other supports"
            )
