"""What a file was made from and with, and which files may stand in one table.

Every file of a run holds facts about its making as JSON, in parquet under the key `cdfss`. Files
whose numbers are compared must be of the same pictures, lists, model, settings and code.
"""

import ast
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cdfss.errors import CdfssError

PACKAGE = Path(__file__).parents[1]
# Rooms and modules that decide numbers wherever they are used. What made pictures, lists and checkpoints
# is not among them: these are compared by their content.
DECIDING = ("backbones", "data.metrics", "data.pictures", "methods", "running.precision")
CODE = {  # modules that make each kind of file; rows are by a method besides, trainings of a host
    "rows": ("evaluation.evaluate", "data.pictures"),
    "measurements": ("evaluation.measurement", "evaluation.analyses", "data.pictures"),
    "training": ("methods.training", "data.episodes", "data.pictures"),
}
# But for what only says which there are.
LISTS = ("methods.hosts", "methods.known", "methods.modules.known", "methods.own")


def digest(values) -> str:
    """First 16 hexadecimal digits of the sha256 of plain values, independent of key order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@cache
def code(*modules: str) -> str:
    """16 hexadecimal digits that stand for modules of this package, and for all of DECIDING that they use.

    Comments, docstrings and layout do not count, nor does the version of Python.

    Args:
        modules: such as "evaluation.evaluate".
    """
    found: dict[str, list] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or not (file := _file_of(module)):
            continue
        found[module], imported = _code_of(file)
        waiting += [name for name in imported if decides(name)]
    return digest(found)


def _file_of(module: str) -> Path | None:
    """The file of a module of this package; none for what a module holds, or for a folder."""
    file = PACKAGE / f"{module.replace('.', '/')}.py"
    return file if file.is_file() else None


def decides(module: str) -> bool:
    """Whether a module of this package decides numbers wherever it is used."""
    return module not in LISTS and any(f"{module}.".startswith(f"{name}.") for name in DECIDING)


@cache
def _code_of(file: Path) -> tuple[list, list[str]]:
    """What a module does, and the modules of this package that it imports, anywhere in it."""
    source = file.read_bytes()
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            base = node.module.removeprefix(PACKAGE.name).lstrip(".")
            imported += [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)]
    return _meaning(source), imported


def _meaning(source: bytes) -> list:
    """A module's syntax tree as plain values, without docstrings."""

    def plain(node):
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, ast.AST):
            return node if isinstance(node, str | int | float | bool | None) else repr(node)
        fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
        body = fields.get("body")
        if isinstance(body, list) and isinstance(body[0], ast.Expr) and _is_text(body[0].value):
            fields["body"] = body[1:]
        return [type(node).__name__, {name: plain(value) for name, value in fields.items()}]

    return plain(ast.parse(source))


def _is_text(node) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@cache
def commit() -> str | None:
    """The commit that this code is of, with "+changes" if files differ from it; None outside of git."""

    def git(*arguments):
        command = ["git", "-C", str(PACKAGE), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not just installed into somebody's repository
        changes = git("status", "--porcelain", "--", ".")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changes else "")
    except (OSError, subprocess.SubprocessError):
        return None


def made_with(*packages: str) -> dict:
    """Versions of this package, of Python and of others, and the kind of machine."""
    versions = {}
    for package in ("cdfss", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    found = {
        **versions,
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    return {key: value for key, value in found.items() if value is not None}


def with_facts(table: pa.Table, facts: dict) -> pa.Table:
    """A table that holds facts in its metadata, and no others."""
    return table.replace_schema_metadata({"cdfss": json.dumps(facts, sort_keys=True)})


def read_schema(path: str | Path) -> pa.Schema:
    """Schema of a parquet file.

    Raises:
        CdfssError: when it is damaged.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise damaged(path, error) from error


def read_table(path: str | Path, **how) -> pa.Table:
    """A parquet file; raises as `read_schema`."""
    try:
        table = pq.read_table(path, partitioning=None, **how)
        table.validate(full=True)  # or texts that are none would only be found when they are used
        return table
    except (pa.ArrowException, ValueError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: str | Path, error: Exception) -> CdfssError:
    """The error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return CdfssError(f"{path} is not there; run the workflow again to make it")
    return CdfssError(
        f"{path} cannot be read ({' '.join(str(error).split())[:200]}): it is damaged, or no file of this "
        "kind. Delete it and run the same command again to make it anew"
    )


def facts(schema: pa.Schema) -> dict:
    """Facts in a file's metadata; empty for a file that has none."""
    try:
        found = json.loads((schema.metadata or {}).get(b"cdfss", b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_of(path: str | Path, settings: dict) -> bool:
    """Whether a parquet file is there and was made with these settings."""
    try:
        return digest(facts(read_schema(path)).get("settings")) == digest(settings)
    except CdfssError:
        return False


def facts_of(paths: Iterable[str | Path]) -> dict[str | Path, dict]:
    """`facts` of parquet files; raises as `read_schema`."""
    return {path: facts(read_schema(path)) for path in paths if Path(path).suffix == ".parquet"}


def must_be_of(identity: str, by_file: dict[str | Path, dict]) -> None:
    """Refuse files that were made from other pictures than an index holds.

    Args:
        identity: of the index.
        by_file: `facts` of each file; those of older versions do not say.
    """
    for file, found in by_file.items():
        if found.get("index", identity) != identity:
            raise CdfssError(
                f"{file} was made from other pictures than the index holds. Delete it and run the same "
                "command again: exactly it is made anew"
            )


def must_agree(by_file: dict[str | Path, dict]) -> None:
    """Refuse files that do not belong together.

    Args:
        by_file: `facts` of each.

    Raises:
        CdfssError: says what differs, which files are the older ones and how to make them again.
    """
    for what, value_of in _COMPARED.items():
        groups: dict = {}
        for file, found in by_file.items():
            for place, value in value_of(found):
                groups.setdefault(place, {}).setdefault(value, []).append(Path(file))
        for place, by_value in groups.items():
            if len(by_value) > 1:
                raise CdfssError(_mixture(f"{what}{f' of {place}' if place else ''}", by_value))


def _mixture(what: str, by_value: dict[str, list[Path]]) -> str:
    def time(files):
        return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)

    newest = max(by_value, key=lambda value: time(by_value[value]))
    older = [file for value, files in by_value.items() if value != newest for file in files]
    shown = [str(file) for file in older[:20]]
    more = f" and {len(older) - 20} more" if len(older) > 20 else ""
    values = "; ".join(f"{value or 'unknown'} in {len(files)} files" for value, files in by_value.items())
    return (
        f"these files do not belong together, so nothing is made from them: {what} differ ({values}). "
        f"The older {len(older)}: {', '.join(shown)}{more}. Delete these and run the same command again: "
        "exactly they are made anew"
    )


def _settings(found: dict) -> dict:
    return found.get("settings", {})


def _of_domain(key: str):
    def values(found):
        return [(_settings(found).get("domain", ""), found.get(key, ""))]

    return values


def _of_list(found: dict):
    place = ", ".join(str(_settings(found).get(key, "")) for key in ("domain", "shot", "seed"))
    return [(place, found.get("episodes", ""))]


def _of_host(value_of):
    """A value of files that a host's source-trained model was needed for."""
    return lambda found: [(_host(found), value_of(found))] if "checkpoint" in found else []


def _host(found: dict) -> str:
    """Whose source model a file is of; empty for HSNet's."""
    return _settings(found).get("host", "")


def _of_model(found: dict):
    """Of each seed of the source training there is one model."""
    return [(_source(found), found["checkpoint"])] if "checkpoint" in found else []


def _source(found: dict) -> str:
    """Which source model a file is of; empty for one of HSNet that was given."""
    seed = _settings(found).get("seed" if found.get("kind") == "training" else "source")
    return f"{_host(found)} source seed {seed}".strip() if seed is not None else _host(found)


def _of_weights(found: dict):
    backbone = _settings(found).get("backbone")
    return [(f"{backbone}", found.get("weights", ""))] if backbone else []


def _of_method(found: dict):
    """A method and its modules, each with the digest of its code."""
    return list(found.get("method_codes", {}).items())


def _kind(found: dict) -> str:
    """Kind of a file; each host has code of its training."""
    kind = found.get("kind", "")
    return f"{_host(found)} {kind}".strip() if kind == "training" else kind


def _of_precision(found: dict):
    precision = _settings(found).get("precision")
    return [("", precision)] if precision else []


def _of_device(found: dict):
    precise = _settings(found).get("precision", "float32") == "float32"
    return [] if precise else [("", found.get("device", ""))]


def _of_variant(found: dict):
    settings = {key: value for key, value in _settings(found).items() if key != "shard"}
    keys = ("domain", "variant", "shot", "seed", "episodes")  # the last is a measurement's number
    place = [*(str(settings[key]) for key in keys if key in settings), _source(found)]
    return [(", ".join(filter(None, place)), digest(settings))]


_COMPARED = {
    "pictures": _of_domain("index"),
    "episode lists": _of_list,
    "source models": _of_model,
    "source trainings": _of_host(lambda found: found.get("training", "")),
    "image sizes": lambda found: [("", str(_settings(found).get("image_size", "")))],
    "precisions": _of_precision,
    "backbones": _of_host(lambda found: _settings(found).get("backbone", "")),
    "ImageNet weights": _of_weights,
    "devices, which do not round alike in this precision,": _of_device,
    "settings": _of_variant,
    "versions of the code": lambda found: [(_kind(found), found.get("code", ""))],
    "versions of the method": _of_method,
}


def summary(paths: Iterable[str | Path], **more) -> dict:
    """What a table, figure or page was made from: the facts that its files share, and all of each kind.

    Raises:
        CdfssError: when the files do not belong together.
    """
    by_file = facts_of(paths)
    made = {path: found for path, found in by_file.items() if "domain" in _settings(found)}
    must_agree(made)
    for found in by_file.values():
        if "identity" in found:  # an index, of the domain of its name
            of_it = {p: f for p, f in made.items() if _settings(f)["domain"] == found["name"]}
            must_be_of(found["identity"], of_it)
    collected: dict[str, set] = {}
    for found in by_file.values():
        for key in (
            "cdfss",
            "commit",
            "python",
            "torch",
            "numpy",
            "device",
            "gpu",
            "precision",
        ):
            if key in found:
                collected.setdefault(f"{key} of rows", set()).add(str(found[key]))
        if "checkpoint" in found:
            named = f"{_source(found)} {found['checkpoint']}".strip()
            collected.setdefault("checkpoint of rows", set()).add(named)
        if "training" in found:
            named = f"{_host(found)} {found['training']}".strip()
            collected.setdefault("training of rows", set()).add(named)
        if "index" in found and "domain" in _settings(found):
            collected.setdefault("pictures", set()).add(f"{_settings(found)['domain']} {found['index']}")
        if "code" in found:
            collected.setdefault("code", set()).add(f"{_kind(found)} {found['code']}")
        for name, code_of_it in _of_method(found):
            collected.setdefault("methods", set()).add(f"{name} {code_of_it}")
        # Into how many jobs a list was split is no matter of its numbers.
        settings = {key: value for key, value in _settings(found).items() if key not in ("shard", "shards")}
        collected.setdefault("settings", set()).add(digest(settings))
    listed = {key: sorted(values) for key, values in sorted(collected.items())}
    listed["settings"] = digest(listed.get("settings", []))
    return {"made from": listed, **made_with(), **more}


def summaries_must_agree(by_file: dict[str | Path, dict]) -> None:
    """Refuse tables and galleries whose `summary` names other pictures, models or code for the same thing.

    Raises:
        CdfssError: as `must_agree`.
    """
    singular: dict[str, dict] = {}
    for file, origin in by_file.items():
        made_from = origin.get("made from", {})
        for key in ("pictures", "code", "methods", "checkpoint of rows", "training of rows"):
            for value in made_from.get(key, []):
                # "lungs 1a2b": of each domain, kind of code, method and source seed there is one.
                place, _, stamp = value.rpartition(" ")
                singular.setdefault(f"{key} {place}".strip(), {}).setdefault(stamp, []).append(Path(file))
    for what, by_value in singular.items():
        if len(by_value) > 1:
            raise CdfssError(_mixture(what, by_value))


def in_words(origin: dict) -> str:
    """A `summary` as one line for people."""
    made_from = origin.get("made from", {})
    parts = [
        f"{key} {', '.join(value) if isinstance(value, list) else value}"
        for key, value in made_from.items()
    ]
    by = ", ".join(f"{key} {value}" for key, value in origin.items() if isinstance(value, str))
    return f"Made by {by}; from {'; '.join(parts)}."
