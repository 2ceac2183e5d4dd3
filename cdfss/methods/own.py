"""Anyone's own methods: files and modules, what they import, their mistakes in words."""

import ast
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from cdfss.errors import CdfssError
from cdfss.methods.contract import Settings
from cdfss.running import devices, provenance


def is_own(name: str) -> bool:
    """Whether a name means a file or module of the user's."""
    return ":" in name


def by_name(name: str, ours: dict[str, tuple[str, str]], base: type, what: str) -> type:
    """A class by its name: one of this package's, or a user's own.

    Args:
        ours: module and class by name.
        what: what it should be, for errors.

    Raises:
        CdfssError: for an unknown name; and as `class_of`.
    """
    if name in ours:
        place, found = ours[name]
        return getattr(importlib.import_module(place), found)
    if not is_own(name):
        near = difflib.get_close_matches(name, ours, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CdfssError(
            f"{what} {name!r} is unknown; {hint}known are {', '.join(ours)}, and your own as "
            "folder/file.py:Class or module:Class"
        )
    return class_of(name, base, what)


def class_of(name: str, base: type, what: str) -> type:
    """A user's own class, derived from `base`.

    Args:
        what: what it should be, for errors.

    Raises:
        CdfssError: for a file, module or class that is not there; a file that cannot be imported, with file
            and line; another kind of class, or settings of another kind.
    """
    place, _, class_name = name.rpartition(":")
    found = getattr(module_of(name, what), class_name, None)
    if not (isinstance(found, type) and issubclass(found, base) and found is not base):
        fault = f"there is no {class_name}" if found is None else f"{class_name} is no {what}"
        raise CdfssError(
            f"{what} {name!r}: {fault} in {place}; expected a class that is derived from "
            f"{base.__module__}.{base.__name__}"
        )
    if not (isinstance(found.Settings, type) and issubclass(found.Settings, Settings)):
        raise CdfssError(f"{what} {name!r}: Settings must be derived from cdfss.methods.contract.Settings")
    return found


def file_of(name: str, what: str = "method") -> Path:
    """The file of a user's own method, or of what else it is.

    Raises:
        CdfssError: when it is not there, or its package cannot be imported.
    """
    place, _, _ = name.rpartition(":")
    if place.endswith(".py"):
        file = Path(place).expanduser()
        if not file.is_file():
            raise CdfssError(f"{what} {name!r}: there is no file {file} (working folder: {Path.cwd()})")
        return file
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    except (Exception, SystemExit) as error:  # the package that it is in
        told = f"{type(error).__name__}: {error}"
        raise CdfssError(f"{what} {name!r}: the package of {place} cannot be imported: {told}") from error
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise CdfssError(
            f"{what} {name!r}: there is no module {place} that Python can import; install it, or write "
            "folder/file.py:Class"
        )
    return Path(spec.origin)


def module_of(name: str, what: str = "method"):
    """The Python module of a user's own method, or of what else it is, imported.

    Raises:
        CdfssError: as `file_of`; when it cannot be imported, with file and line.
    """
    file, (place, _, _) = file_of(name, what), name.rpartition(":")
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        # By a name of its own: two files may be called alike.
        unique = f"cdfss_own_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
        spec = importlib.util.spec_from_file_location(unique, file)
        module = sys.modules[unique] = importlib.util.module_from_spec(spec)
        folder = file.resolve().parent
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # for what lies beside it
        _check_names(name, folder, what)
        spec.loader.exec_module(module)
        return module
    except CdfssError:
        raise
    except (Exception, SystemExit) as error:
        raise CdfssError(f"{what} {name!r} cannot be imported: {in_words(error, file)}") from error


def in_words(error: BaseException, file: Path) -> str:
    """An error in a user's file: kind, message, file and line, the last of them that is in the file."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) and error.filename:
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    if mine:
        frame = mine[-1]
        message += f" ({file}, line {frame.lineno}: {frame.line})"
    return message


@contextmanager
def told(name: str, what: str, kind: type[CdfssError] = CdfssError, passes: type[Exception] = CdfssError):
    """A mistake in a user's own code becomes an error, of this kind, with the line of its file.

    Args:
        name: of what runs in the block, ours or a user's own; ours fails as it does.
        what: what it is, for the message.
        passes: kind of errors that stay as they are.
    """
    try:
        yield
    except (CdfssError, passes):
        raise
    except (Exception, SystemExit) as error:  # with sys.exit(0) a job would seem to have ended well
        if not is_own(name) or devices.ran_out_of_memory(error):
            raise
        raise kind(f"{what} {name!r} failed: {in_words(error, file_of(name, what))}") from error


def checked_settings(name: str, what: str, kind: type[Settings], values: dict) -> Settings:
    """Settings of a method or module from plain values.

    Raises:
        CdfssError: says what is wrong with which; where a user's own check of them fails, with the line.
    """
    with told(name, what):
        try:
            return kind.model_validate(values)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise CdfssError(f"{what} {name!r}: settings are not as it wants them: {wrong}") from error


def code_by_name(name: str, ours: dict[str, tuple[str, str]]) -> str:
    """16 hexadecimal digits that stand for code that `by_name` finds: this package's, or a user's."""
    return code_of(name) if is_own(name) else provenance.code(ours[name][0].removeprefix("cdfss."))


def code_of(name: str) -> str:
    """16 hexadecimal digits that stand for a user's own method or module.

    They are of the content of its file, of what that imports beside it or from the working folder (or, for
    a module, from its package), and of the methods and networks of this package that it builds on.
    """
    first, files = file_of(name), _files_of(name)
    # By where they lie from it: another folder or machine is no other method.
    found = [
        (os.path.relpath(file, first.resolve().parent), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in map(Path.resolve, files)
    ]
    ours = provenance.PACKAGE.name
    built_on = set()
    for file in files:
        for dots, imported in _imports(file):
            if not dots and imported.startswith(f"{ours}."):
                name = imported.removeprefix(f"{ours}.")
                built_on |= {name, name.rpartition(".")[0]}  # the last part may be what a module holds
    # All rows depend on the contract, whoever's they are.
    modules = {m for m in built_on if provenance.decides(m) and not m.startswith("methods.contract")}
    return provenance.digest([sorted(found), provenance.code(*sorted(modules))])


def _files_of(name: str) -> list[Path]:
    """The file of a user's own, and those that it imports, and these in turn."""
    file, place = file_of(name), name.rpartition(":")[0]
    if place.endswith(".py"):
        # As Python does, from where the file really is.
        folders, package, waiting = [file.resolve().parent, Path.cwd()], None, [file]
    else:
        folder = file.parents[place.count(".") + (file.name == "__init__.py")]
        installed = {"site-packages", "dist-packages"} & set(folder.parts)
        folders, package = [folder], place.split(".")[0] if installed else None
        waiting = [file, *_candidates(folder, place)]
    found: dict[Path, Path] = {}
    while waiting:
        file = waiting.pop()
        if file.is_file() and file.resolve() not in found:
            found[file.resolve()] = file
            waiting += _imported(file, folders, package)
    return list(found.values())


def _imports(file: Path) -> list[tuple[int, str]]:
    """What a file imports anywhere in it: dots before the name, and the name."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return []
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.level, f"{node.module or ''}.{alias.name}".strip(".")) for alias in node.names]
    return found


def _imported(file: Path, folders: list[Path], package: str | None) -> list[Path]:
    """Files that a file may import, from folders or its own package; if given, of this package alone."""
    paths = []
    for dots, name in _imports(file):
        if dots:
            above = Path(os.path.abspath(file)).parents[dots - 1 : dots]
            paths += [path for folder in above for path in _candidates(folder, name)]
        elif (top := name.split(".")[0]) != provenance.PACKAGE.name and package in (None, top):
            paths += [path for folder in folders for path in _candidates(folder, name)]
    return paths


def _candidates(folder: Path, name: str) -> list[Path]:
    """Files that run when "a.b.c" is imported from a folder; c may be what a.b holds."""
    parts = name.split(".")
    paths = [folder.joinpath(*parts[:number]) for number in range(1, len(parts) + 1)]
    return [f for path in paths for f in (path.with_name(f"{path.name}.py"), path / "__init__.py")]


def _check_names(name: str, folder: Path, what: str) -> None:
    """Refuse a file beside a user's own whose name Python takes for another, which it would run."""
    imports = [of_file for file in _files_of(name) for of_file in _imports(file)]
    for top in sorted({imported.split(".")[0] for dots, imported in imports if not dots}):
        beside = [path for path in _candidates(folder, top) if path.is_file()]
        spec = importlib.util.find_spec(top) if beside else None
        if (
            spec
            and spec.origin
            and not any(path.samefile(spec.origin) for path in beside if spec.has_location)
        ):
            raise CdfssError(
                f"{what} {name!r} imports {top}, which lies beside it, but Python knows another {top} "
                f"({spec.origin}) and would take that; give yours another name"
            )
