"""Methods by name: those of this package, and anyone's own by file or module and class."""

from functools import cache

from cdfss.errors import CdfssError
from cdfss.methods import own
from cdfss.methods.contract import Method, Settings
from cdfss.methods.hosts import HOSTS

METHODS = {
    "hsnet": ("cdfss.methods.hsnet.method", "Method"),
    "patnet": ("cdfss.methods.patnet.method", "Method"),
    "fptrans": ("cdfss.methods.fptrans.method", "Method"),
    "ridge": ("cdfss.methods.ridge", "Ridge"),
    "propagation": ("cdfss.methods.propagation", "Propagation"),
    "prototypes": ("cdfss.methods.prototypes", "Prototypes"),
    "foreground": ("cdfss.methods.trivial", "Foreground"),
    "copy": ("cdfss.methods.trivial", "Copy"),
}
NEEDS = ("nothing", "device", "backbone", "source")
TAKEN = {"title", "method", "backbone", "main", "settings"}  # names that a variant has itself


@cache
def find(name: str) -> type[Method]:
    """A method's class.

    Args:
        name: of METHODS; or "folder/file.py:Class", from the working folder; or "module:Class".

    Raises:
        CdfssError: for an unknown name; a file, module or class that is not there; a file that cannot be
            imported, with file and line; a class that is no method.
    """
    found = own.by_name(name, METHODS, Method, "method")
    if own.is_own(name):
        _check(name, found)
    return found


def _check(name: str, found: type[Method]) -> None:
    if found.needs not in NEEDS:
        raise CdfssError(f"method {name!r}: needs is {found.needs!r}; expected one of {', '.join(NEEDS)}")
    if found.host not in HOSTS:
        raise CdfssError(f"method {name!r}: host is {found.host!r}; expected one of {', '.join(HOSTS)}")
    least = found.least_supports
    if type(least) is not int or least < 1:
        raise CdfssError(f"method {name!r}: least_supports is {least!r}; expected a number of at least 1")
    fields = found.Settings.model_fields
    renamed = [key for key, field in fields.items() if field.alias or field.validation_alias]
    if renamed:
        raise CdfssError(
            f"method {name!r}: setting {renamed[0]} has an alias; settings go by their own names"
        )
    both = sorted(TAKEN & set(fields))
    if both:
        raise CdfssError(
            f"method {name!r}: a setting is called {both[0]}, which every variant has itself; rename it"
        )


def code_of(name: str) -> str:
    """16 hexadecimal digits that stand for a method's code: this package's, or a user's files."""
    return own.code_by_name(name, METHODS)


def codes_of(name: str, settings: dict) -> dict[str, str]:
    """`code_of` a method, and of what its settings, plain values, name besides (`Settings.codes`)."""
    return {name: code_of(name)} | find(name).Settings.model_validate(settings).codes()


def is_own(name: str, settings: Settings) -> bool:
    """Whether a method with these settings runs code of the user's."""
    return own.is_own(name) or settings.own_code
