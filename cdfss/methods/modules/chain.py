"""Modules in order, with their parameters, on the deepest maps of a host model."""

from collections.abc import Callable, Collection, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cdfss.errors import CdfssError
from cdfss.methods import own
from cdfss.methods.modules.known import build, by_key, by_place, listed


class Chain(nn.Module):
    """Modules one after the other, each with its parameters.

    Maps of query and support pass it on their way to the comparison: module by module, with the support
    mask before the first module that stands behind it, or at the end. Its children, by the modules' names,
    are `nn.ParameterDict`s, whose tensors have a first dimension of 1, or of E episodes.

    Args:
        modules: names, or {name: settings}, in order; see `known.listed`.
        channels, height, width: of the maps.
        seed: of random first parameters.

    Raises:
        CdfssError: for an unknown module, wrong settings, one that is named twice, or parameters that are
            none; and whenever a user's own module fails, with the line of its file.
    """

    def __init__(self, modules: Iterable, channels: int, height: int, width: int, seed: int = 0):
        super().__init__()
        try:
            entries = [listed(entry) for entry in modules]
            self._names = by_key(entries)
        except ValueError as error:
            raise CdfssError(str(error)) from error
        self.size = height, width
        self.parts = {}
        for entry, (key, name) in zip(entries, self._names.items()):
            if hasattr(self, key):
                raise CdfssError(
                    f"module {name!r}: its class is called {key}, as something of a chain of modules is; "
                    "rename it"
                )
            with own.told(name, "module"):
                self.parts[key] = build(entry)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                first = self._call(key, "parameters", channels, height, width)
            self.add_module(key, nn.ParameterDict(_checked_parameters(name, first)))
        self._alone, self._before, self._behind = by_place(self.parts)

    @property
    def tunable(self) -> list[str]:
        """Names of the modules that have parameters."""
        return [key for key, part in self.parts.items() if part.learns]

    @property
    def episodes(self) -> int:
        """E, for which there are parameters: 1, or more once they were tuned in a batch."""
        return max((len(p) for p in self.parameters()), default=1)

    def forward(self, maps: Tensor) -> Tensor:
        """`alone`, at once."""
        return self.alone(maps)()

    def alone(self, maps: Tensor, tuned: Iterable[str] = ()) -> Callable[[], Tensor]:
        """Maps (..., E, C, h, w) after all modules that look at one picture and stand before the mask.

        What does not change while `tuned` modules do is computed here, the rest in each call.

        Raises:
            CdfssError: when maps are of another size than the parameters.
        """
        tuned = set(tuned)
        prepared = self.prepared(maps, tuned)
        return lambda: self.changed(prepared, tuned)

    def prepared(self, maps: Tensor, tuned: Collection[str]) -> tuple:
        """What `changed` takes: maps (..., E, C, h, w) up to the first of the `tuned` modules, and what
        that one prepares of them.
        """
        self._check(maps)
        fixed = maps
        for key in self._alone:
            if key in tuned:
                return fixed, self._call(key, "prepare", fixed)
            fixed = self._change(key, fixed)
        return fixed, None

    def changed(self, prepared: tuple, tuned: Collection[str]) -> Tensor:
        """The maps of `alone`, from what `prepared` made for the same `tuned` modules."""
        fixed, of_first = prepared
        rest = list(self._alone)
        while rest and rest[0] not in tuned:
            rest.pop(0)
        if not rest:
            return fixed
        first, *others = rest
        found = self._checked(first, self._call(first, "change", getattr(self, first), of_first), fixed)
        for key in others:
            found = self._change(key, found)
        return found

    def together(
        self, query: Tensor, support: Tensor, mask: Tensor, query_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Maps of query and masked support (..., E, C, h, w) after all modules that `alone` leaves.

        Args:
            query, support: maps after `alone`.
            mask: of the support, at the size of its maps, (..., E, 1, h, w).
            query_mask: (..., E, 1, S, S) of any size, for modules that are shown it.

        Raises:
            CdfssError: when there is such a module, and no mask of the query.
        """
        for key in self._before:
            query, support = self._change_both(key, query, support, mask, query_mask)
        support = support * mask
        for key in self._behind:
            query, support = self._change_both(key, query, support, mask, query_mask)
        return query, support

    @property
    def own(self) -> list[str]:
        """Names of modules that are not of this package."""
        return [name for name in self._names.values() if own.is_own(name)]

    def penalty(self) -> Tensor | None:
        """What modules add to the loss, (1,) or (E,); None for nothing."""
        terms = []
        for key in self.parts:
            term = self._call(key, "penalty", getattr(self, key))
            if not isinstance(term, Tensor | None):
                raise CdfssError(
                    f"module {self._names[key]!r}: penalty returned {type(term).__name__}; expected "
                    "a tensor with a number of each episode, or None"
                )
            if term is not None:
                terms.append(term)
        return sum(terms) if terms else None

    def factors(self) -> dict[str, Tensor]:
        """Learnt factors on frequencies by name, as `Module.factors`; of the last module that has any."""
        found = {}
        for key in self.parts:
            mine = self._call(key, "factors", getattr(self, key))
            named = isinstance(mine, dict | nn.ParameterDict)
            if not named or not all(isinstance(factor, Tensor) for factor in mine.values()):
                raise CdfssError(
                    f"module {self._names[key]!r}: factors returned {mine!r}; expected a "
                    "dictionary of tensors"
                )
            found = mine or found
        return found

    def _call(self, key: str, function: str, *given):
        with own.told(self._names[key], "module"):
            return getattr(self.parts[key], function)(*given)

    def _checked(self, key: str, found, maps: Tensor) -> Tensor:
        """What a module made of maps, in their type."""
        if not isinstance(found, Tensor) or found.shape != maps.shape:
            said = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise CdfssError(
                f"module {self._names[key]!r} returned {said} for maps of {list(maps.shape)}; expected "
                "maps of the same shape"
            )
        return found.to(maps.dtype)

    def _change(self, key: str, maps: Tensor) -> Tensor:
        prepared = self._call(key, "prepare", maps)
        return self._checked(key, self._call(key, "change", getattr(self, key), prepared), maps)

    def _change_both(self, key, query, support, mask, query_mask) -> tuple[Tensor, Tensor]:
        part = self.parts[key]
        if not part.of_pairs:
            return self._change(key, query), self._change(key, support)
        shown = None
        if part.oracle:
            if query_mask is None:
                raise CdfssError(
                    f"module {key!r} is an oracle, which is shown the query's mask, and got none"
                )
            size = query.shape[-2:]
            flat = query_mask.float().flatten(0, -4)
            shown = F.interpolate(flat, size, mode="bilinear", align_corners=True)
            shown = shown.view(*query_mask.shape[:-2], *size)
        changed = self._call(key, "change_pair", getattr(self, key), query, support, shown, mask)
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise CdfssError(
                f"module {self._names[key]!r} returned {type(changed).__name__} for a pair of maps; "
                "expected those of the query and those of the support"
            )
        return tuple(self._checked(key, *both) for both in zip(changed, (query, support)))

    def _check(self, maps: Tensor) -> None:
        sized = [key for key, part in self.parts.items() if part.sized]
        if sized and tuple(maps.shape[-2:]) != self.size:
            raise CdfssError(
                f"module {sized[0]!r} was made for maps of {' x '.join(map(str, self.size))}, these are "
                f"{list(maps.shape)}; make the model for the image size that it is used with"
            )


def _checked_parameters(name: str, first) -> dict[str, Tensor]:
    """First values of a module's parameters, one set of them."""
    if not isinstance(first, dict):
        raise CdfssError(
            f"module {name!r}: parameters returned {type(first).__name__}; expected a dictionary"
        )
    for what, values in first.items():
        if not isinstance(what, str) or not what.isidentifier() or hasattr(nn.ParameterDict(), what):
            raise CdfssError(
                f"module {name!r}: a parameter is called {what!r}, as none of torch can be; rename it"
            )
        if not (isinstance(values, Tensor) and values.is_floating_point()):
            said = values.dtype if isinstance(values, Tensor) else type(values).__name__
            raise CdfssError(
                f"module {name!r}: parameter {what!r} is {said}; expected a floating point tensor"
            )
        if values.dim() == 0 or len(values) != 1:
            raise CdfssError(
                f"module {name!r}: parameter {what!r} is {list(values.shape)}; expected a first dimension "
                "of 1, which is that of episodes"
            )
    return first
