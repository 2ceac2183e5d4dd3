"""What a module is: it changes the deepest maps of a frozen host model, and may be tuned to supports.

Maps are real, (..., E, C, h, w) for E episodes. Parameters are tensors whose first dimension is 1, or E,
one set for each episode; so they must be broadcast to the maps' last four dimensions.
docs/how-to/own-method.md has a worked example of one's own.

No file with a module imports torch at its top, but in its functions: a plan looks at facts and settings
of modules, and starts without torch.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cdfss.methods.contract import Settings

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("frequency masker", "channel attention", "frequency", "correlation", "other")


class Module:
    """A change of maps. Derive yours from it.

    Attributes:
        family: for the tables that are about one: APM and ACPA are the paper's "frequency masker" and
            "channel attention"; "frequency" and "correlation" are its rivals of tables 8 and 9.
        learns: whether it has parameters.
        after_mask: whether it stands behind the support mask; else support maps are of whole pictures. The
            mask comes before the first module of a chain that wants it so.
        sized: whether parameters are for one height and width of maps; other pictures are refused then.
        of_pairs: whether it changes query and support in the light of each other; then `change_pair` is
            called instead of `change`.
        oracle: whether it is shown the query's mask, which nobody has who wants to segment it.
        Settings: its settings, derived from `cdfss.methods.contract.Settings`.
    """

    family: ClassVar[Literal[FAMILIES]] = "other"
    learns: ClassVar[bool] = False
    after_mask: ClassVar[bool] = False
    sized: ClassVar[bool] = False
    of_pairs: ClassVar[bool] = False
    oracle: ClassVar[bool] = False
    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: Settings):
        self.settings = settings

    def parameters(self, channels: int, height: int, width: int) -> "dict[str, Tensor]":
        """First values by name, (1, ...) each, for maps (C, h, w); random ones are torch's."""
        return {}

    def prepare(self, maps: "Tensor") -> Any:
        """What `change` takes: all that does not depend on parameters, done once for all steps."""
        return maps

    def change(self, parameters: "dict[str, Tensor]", prepared: Any) -> "Tensor":
        """Changed maps (..., E, C, h, w) from what `prepare` made of maps."""
        raise NotImplementedError(f"{type(self).__name__} has no change(parameters, prepared)")

    def change_pair(
        self,
        parameters: "dict[str, Tensor]",
        query: "Tensor",
        support: "Tensor",
        query_mask: "Tensor | None",
        support_mask: "Tensor",
    ) -> "tuple[Tensor, Tensor]":
        """Changed maps of query and support, (..., E, C, h, w) both; only where `of_pairs`.

        Args:
            query_mask: (..., E, 1, h, w) in 0..1 at the size of the maps where `oracle`, else None.
            support_mask: the same of the support.
        """
        raise NotImplementedError(f"{type(self).__name__} has no change_pair(...)")

    def penalty(self, parameters: "dict[str, Tensor]") -> "Tensor | None":
        """What is added to the loss of each episode, (1,) or (E,); None for nothing."""
        return None

    def factors(self, parameters: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Learnt factors in 0..1 on frequencies by name, (E, C or 1, h, w), the lowest in the centre.

        The figure of learnt masks shows them.
        """
        return {}
