"""Whether a class keeps the contract for modules: one check for ours and for anyone's own."""

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from cdfss.errors import CdfssError
from cdfss.methods.conformance import described_settings
from cdfss.methods.modules import known
from cdfss.methods.modules.chain import Chain

ALIKE = 1e-4  # of the largest value; sums of floating point numbers differ
LEVELS, EPISODES, CHANNELS, HEIGHT, WIDTH = 2, 3, 8, 5, 6


def check(name: str, settings: dict | None = None) -> list[str]:
    """Run a module on drawn maps, as a host model does, and see whether it does what the contract says.

    Args:
        name: as `known.find` takes it.
        settings: as plain values; default settings otherwise.

    Returns:
        What was checked, a line each.

    Raises:
        CdfssError: at the first thing that is not as the contract says: what was found, what is expected.
    """
    return list(_checks(name, known.find(name), {name: settings or {}}))


def _checks(name: str, found: type, entry: dict) -> Iterator[str]:
    described = described_settings(name, "module", found.Settings)
    yield f"family {found.family}; settings: {described}"

    first, again = (Chain([entry], CHANNELS, HEIGHT, WIDTH) for _ in range(2))
    values = dict(first.named_parameters())
    if bool(values) != found.learns:
        has = f"parameters {', '.join(values)}" if values else "no parameters"
        raise CdfssError(f"module {name!r}: learns is {found.learns}, but it has {has}")
    if not all(value.isfinite().all() for value in values.values()):
        raise CdfssError(f"module {name!r}: first values of parameters are not all finite")
    for what, value in again.named_parameters():
        _alike(
            name,
            value.detach(),
            values[what].detach(),
            0.0,
            f"first values of {what}, of the same seed a second time,",
        )
    yield f"{sum(value.numel() for value in values.values())} parameters, the same for the same seed"

    given = _given()
    kept = [part.clone() for part in given]
    chains = {"at first values": first}
    if found.learns:
        chains["with parameters for each episode"] = _tuned(first)
    for which, chain in chains.items():
        before = [value.clone() for value in chain.parameters()]
        changed = _run(chain, given)
        if not changed.isfinite().all():
            raise CdfssError(f"module {name!r}, {which}: changed maps are not all finite")
        for what, part, old in zip(("query", "support", "support's mask", "query's mask"), given, kept):
            if not torch.equal(part, old):
                raise CdfssError(f"module {name!r} changed the {what} that it was given; work on a copy")
        if not all(map(torch.equal, chain.parameters(), before)):
            raise CdfssError(f"module {name!r} changed its parameters; only steps of tuning do")
        _alike(name, _run(chain, given), changed, 0.0, f"{which}: for the same input the second time, maps")
        yield f"{which}: finite maps of the same shape, again the same, what it was given untouched"

        one = _run(chain, [part[:1] for part in given])
        _alike(name, one, changed[:, :1], ALIKE, f"{which}: without the other maps of a picture, maps")
        alone = [_run(_of(chain, e), [part[:, e : e + 1] for part in given]) for e in range(EPISODES)]
        _alike(name, torch.cat(alone, 2), changed, ALIKE, f"{which}: for episodes one by one, maps")
        yield f"{which}: maps and episodes know nothing of each other"

        _check_prepared(name, chain, given, which)
        _check_penalty(name, chain)
        _check_factors(name, chain)
    _check_gradients(name, chain, given)
    yield "gradients reach every parameter and pass to the maps"

    query, support, mask, truth = given
    for what, others in {
        "maps of zeros": [torch.zeros_like(query), torch.zeros_like(support), mask, truth],
        "empty masks": [query, support, torch.zeros_like(mask), torch.zeros_like(truth)],
        "full masks": [query, support, torch.ones_like(mask), torch.ones_like(truth)],
    }.items():
        for of, run in (("changed maps", _run), ("gradients", _all_gradients)):
            if not _in_words_or(lambda others=others, run=run: run(first, others)).isfinite().all():
                raise CdfssError(
                    f"module {name!r}: for {what}, {of} are not all finite; return what is, or raise a "
                    "CdfssError that says what was found and what to do"
                )
    yield "maps of zeros, empty and full masks give finite maps and gradients, or are refused in words"

    if not found.sized:
        _run(first, [F.pad(part, (0, 2, 1, 0)) for part in given])  # which looks at shapes
        yield "maps of another height and width are changed as well"


def _given() -> list[Tensor]:
    """Drawn maps of query and support (L, E, C, h, w), and masks of support and query (L, E, 1, h, w)."""
    generator = torch.Generator().manual_seed(0)
    shape = LEVELS, EPISODES, CHANNELS, HEIGHT, WIDTH
    query, support = (torch.randn(shape, generator=generator) + 0.3 for _ in range(2))
    # Soft at borders, as masks are that were made smaller; those of a model's maps are all the same.
    mask, truth = (torch.rand(EPISODES, 1, HEIGHT, WIDTH, generator=generator) for _ in range(2))
    return [query, support, *((m * 1.5).clamp(max=1).repeat(LEVELS, 1, 1, 1, 1) for m in (mask, truth))]


def _tuned(chain: Chain) -> Chain:
    """A chain with other parameters for each episode."""
    generator = torch.Generator().manual_seed(1)

    def other(value):
        noise = torch.randn(EPISODES, *value.shape[1:], generator=generator)
        return value + 0.1 * noise.to(value.dtype)

    return _with(chain, other)


def _of(chain: Chain, episode: int) -> Chain:
    """A chain with the parameters of one episode."""
    return _with(chain, lambda value: value[episode : episode + 1] if len(value) > 1 else value)


def _with(chain: Chain, change: Callable) -> Chain:
    other = copy.deepcopy(chain)
    for parameter in other.parameters():
        parameter.data = change(parameter.data).clone()
    return other


def _run(chain: Chain, given: list[Tensor]) -> Tensor:
    """Changed maps of query and masked support, (2, L, E, C, h, w)."""
    query, support, mask, truth = given
    with torch.no_grad():
        return torch.stack(chain.together(chain(query), chain(support), mask, truth))


def _alike(name: str, found: Tensor, expected: Tensor, tolerance: float, when: str) -> None:
    difference = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-30)
    if not difference <= tolerance:
        raise CdfssError(
            f"module {name!r}, {when} differ by up to {difference:.2g} of the largest value; expected at "
            f"most {tolerance:g}"
        )


def _check_prepared(name: str, chain: Chain, given: list[Tensor], which: str) -> None:
    """What `prepare` returns serves all steps."""
    with torch.no_grad():
        changed = chain.alone(given[0], chain.parts)
        first, second = changed(), changed()
    _alike(name, second, first, 0.0, f"{which}: from what prepare gave, the second time, maps")


def _check_penalty(name: str, chain: Chain) -> None:
    penalty = chain.penalty()
    if penalty is None:
        return
    episodes = chain.episodes
    if not isinstance(penalty, Tensor) or penalty.shape != (episodes,) or not penalty.isfinite().all():
        raise CdfssError(
            f"module {name!r}: penalty is {penalty!r} for parameters of {episodes} episodes; expected a "
            f"finite number of each, ({episodes},)"
        )
    alone = torch.cat([_of(chain, e).penalty() for e in range(episodes)])
    _alike(name, alone.detach(), penalty.detach(), ALIKE, "for episodes one by one, penalties")


def _check_factors(name: str, chain: Chain) -> None:
    for what, factor in chain.factors().items():
        episodes, channels, *size = factor.shape if factor.dim() == 4 else [0] * 4
        fits = episodes == chain.episodes and channels in (1, CHANNELS) and size == [HEIGHT, WIDTH]
        if not fits or not ((factor >= 0) & (factor <= 1)).all():
            raise CdfssError(
                f"module {name!r}: factor {what} is {list(factor.shape)}, from {factor.min():.3g} to "
                f"{factor.max():.3g}; expected (E, C or 1, h, w) in 0..1"
            )


def _gradients(chain: Chain, given: list[Tensor]) -> dict[str, Tensor | None]:
    """Of a loss by parameters and maps, None where it does not depend on them; empty if on nothing."""
    query, support, mask, truth = given
    with torch.enable_grad():
        query, support = (maps.clone().requires_grad_() for maps in (query, support))
        changed = chain.together(chain(query), chain(support), mask, truth)
        weights = _given()[:2]  # of the loss: any but equal ones
        loss = sum((maps * weight.flip(-1)).sum() for maps, weight in zip(changed, weights))
        if (penalty := chain.penalty()) is not None:
            loss = loss + penalty.sum()
        values = dict(chain.named_parameters()) | {"the query's maps": query, "the support's maps": support}
        if not loss.requires_grad:
            return {}
        return dict(zip(values, torch.autograd.grad(loss, [*values.values()], allow_unused=True)))


def _all_gradients(chain: Chain, given: list[Tensor]) -> Tensor:
    """Those that there are, in one row."""
    found = _gradients(chain, given).values()
    return torch.cat([torch.zeros(1), *(gradient.flatten() for gradient in found if gradient is not None)])


def _check_gradients(name: str, chain: Chain, given: list[Tensor]) -> None:
    gradients = _gradients(chain, given)
    if not gradients:
        raise CdfssError(f"module {name!r}: no gradient passes it; compute with torch alone")
    for what, gradient in gradients.items():
        if (
            gradient is None
            or not gradient.isfinite().all()
            or not gradient.reshape(len(gradient), -1).any(1).all()
        ):
            said = "none" if gradient is None else "not finite" if not gradient.isfinite().all() else "zero"
            raise CdfssError(
                f"module {name!r}: the gradient of {what} is {said}; steps could not tune them"
            )


def _in_words_or(run: Callable[[], Tensor]) -> Tensor:
    """What a run returns; nothing, which is finite, where it is refused in words."""
    try:
        return run()
    except CdfssError as error:
        if error.__cause__ is not None:  # a mistake that was only told so
            raise
        return torch.zeros(())
