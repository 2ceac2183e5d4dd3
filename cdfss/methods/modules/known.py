"""Modules by name: those of this package, and anyone's own by file or module and class."""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from cdfss.errors import CdfssError
from cdfss.methods import own
from cdfss.methods.modules.contract import FAMILIES, Module

MODULES = {
    "apm_s": ("cdfss.methods.modules.apm", "SharedMasker"),
    "apm_m": ("cdfss.methods.modules.apm", "ChannelMasker"),
    "acpa": ("cdfss.methods.modules.acpa", "PhaseAttention"),
    "dff": ("cdfss.methods.modules.dff", "FrequencyFilter"),
    "gfnet": ("cdfss.methods.modules.gfnet", "GlobalFilter"),
    "arp": ("cdfss.methods.modules.arp", "AmplitudeExchange"),
    "dac": ("cdfss.methods.modules.dac", "PhaseConsistentNormalisation"),
    "mmc_simple": ("cdfss.methods.modules.mmc", "SimpleTransformation"),
    "mmc_oracle": ("cdfss.methods.modules.mmc", "OracleTransformation"),
    "srip": ("cdfss.methods.modules.srip", "OrthogonalLayer"),
    "whitening": ("cdfss.methods.modules.whitening", "Whitening"),
}
WHOLE = {"learner", "backbone"}  # parts of a host model, beside its modules, that can be tuned


@cache
def find(name: str) -> type[Module]:
    """A module's class.

    Args:
        name: of MODULES; or "folder/file.py:Class", from the working folder; or "module:Class".

    Raises:
        CdfssError: for an unknown name; a file or class that is not there, cannot be imported, is no
            module, or cannot be one.
    """
    found = own.by_name(name, MODULES, Module, "module")
    if own.is_own(name):
        _check(name, found)
    return found


def _check(name: str, found: type[Module]) -> None:
    if key_of(name) in WHOLE:
        raise CdfssError(
            f"module {name!r}: its class is called as the {key_of(name)} of a host model; rename it"
        )
    if found.oracle and not found.of_pairs:
        raise CdfssError(
            f"module {name!r} is an oracle, but not of_pairs; only change_pair is shown the query's mask"
        )
    if found.family not in FAMILIES:
        raise CdfssError(
            f"module {name!r}: family is {found.family!r}; expected one of {', '.join(FAMILIES)}"
        )


def key_of(name: str) -> str:
    """What a module is called in a chain: its name, of anyone's own that of its class."""
    return name.rpartition(":")[2]


def by_key(entries: Iterable[dict[str, dict]]) -> dict[str, str]:
    """Names of modules, in order, by what they are called in a chain.

    Args:
        entries: as `listed` returns them.

    Raises:
        ValueError: when two are called alike.
    """
    names: dict[str, str] = {}
    for entry in entries:
        (name,) = entry
        key = key_of(name)
        if names.get(key) == name:
            raise ValueError(f"modules name {name!r} twice; each can be there once")
        if key in names:
            raise ValueError(
                f"modules {names[key]!r} and {name!r} go by the names of their classes, and both are "
                f"called {key}; rename one of the classes"
            )
        names[key] = name
    return names


def by_place(modules: dict) -> tuple[list[str], list[str], list[str]]:
    """Keys of modules, in order, by where they stand.

    Those that look at one picture by itself; from the first that looks at pairs to the support mask; behind
    the mask, which comes before the first that wants it so.

    Args:
        modules: or their classes, by what they are called in a chain.
    """
    keys = list(modules)
    behind = next((n for n, key in enumerate(keys) if modules[key].after_mask), len(keys))
    pairs = next((n for n, key in enumerate(keys[:behind]) if modules[key].of_pairs), behind)
    return keys[:pairs], keys[pairs:behind], keys[behind:]


def listed(value: Any) -> dict[str, dict]:
    """An entry of a list of modules as {name: all of its settings as plain values}.

    Args:
        value: a name, or {name: settings}.

    Raises:
        ValueError: says what is wrong with the name or with which setting.
    """
    entry = {value: {}} if isinstance(value, str) else value
    if not (isinstance(entry, dict) and len(entry) == 1 and isinstance(next(iter(entry)), str)):
        raise ValueError(
            f"module {value!r}: expected a name, or one name with its settings, as in acpa: {{hidden: 16}}"
        )
    ((name, settings),) = entry.items()
    try:
        given = {} if settings is None else settings
        checked = own.checked_settings(name, "module", find(name).Settings, given)
    except CdfssError as error:
        raise ValueError(str(error)) from error
    return {name: checked.model_dump(mode="json")}


def build(entry: dict[str, dict]) -> Module:
    """A module from what `listed` returns."""
    ((name, settings),) = entry.items()
    found = find(name)
    return found(own.checked_settings(name, "module", found.Settings, settings))


def code_of(name: str) -> str:
    """16 hexadecimal digits that stand for a module's code: this package's, or a user's files."""
    return own.code_by_name(name, MODULES)


Listed = Annotated[
    dict[str, dict],
    BeforeValidator(listed),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "object", "maxProperties": 1, "minProperties": 1}]}
    ),
]


def _a_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"it is {value!r}; expected a list, as in [apm_s, acpa]")
    return value


Modules = Annotated[tuple[Listed, ...], BeforeValidator(_a_list)]
