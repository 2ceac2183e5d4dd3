"""Mistakes in a configuration, in words."""

import difflib
from typing import get_args

from pydantic import BaseModel, ValidationError

from cdfss.configuration.schema import Configuration, variant_of


def in_words(error: ValidationError, values: dict) -> list[str]:
    """The mistakes in a configuration's plain values, a line each: key, given, allowed."""
    return [_explain(item, values) for item in _of_one_branch(error.errors())]


def _explain(item, values: dict) -> str:
    """One mistake in one line, with the nearest known key for an unknown one."""
    where = [str(part) for part in item["loc"] if not _internal(part)]
    key = ".".join(where)
    if item["type"] == "extra_forbidden":
        model, _ = _walk(where[:-1], values)
        known = list(model.model_fields) if model else []
        near = difflib.get_close_matches(where[-1], known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{key} is not a key; {hint}known here: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{key} is missing: {_describe(where, values)}"
    if item["type"] == "string_pattern_mismatch":
        return f"{key} is {item['input']!r}; names have letters, digits and _ (a title may have any)"
    message = item["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} is {item['input']!r}; {message}"


def _of_one_branch(items: list) -> list:
    """Mistakes without those about the other forms that a value might have had, such as a mapping."""
    kinds = {"dict_type", "float_type", "int_type", "literal_error", "float_parsing"}
    kept: dict[tuple, dict] = {}
    for item in items:
        place = tuple(part for part in item["loc"] if not _internal(part))
        other = kept.get(place)
        if other is None or (other["type"] in kinds and item["type"] not in kinds):
            kept[place] = item
    within = {place[:length] for place in kept for length in range(len(place))}
    return [item for place, item in kept.items() if place not in within or item["type"] not in kinds]


def _internal(part) -> bool:
    """Parts of pydantic's locations that are no keys: the branches of a union, dict-key marks."""
    return isinstance(part, str) and (
        "[" in part or part in ("float", "dict", "int") or part.startswith("constrained-")
    )


def _walk(where: list[str], values: dict):
    """The model and the field at a key, or (model, None)."""
    model, field = Configuration, None
    if where[:1] == ["variants"] and len(where) > 1:  # whose keys are those of its method besides
        model = variant_of((values["variants"][where[1]] or {}).get("method", "hsnet"))
        where = where[2:]
    for part in where:
        if model is None:
            break
        if part not in model.model_fields:
            continue  # a name in a dict, or an index
        field = model.model_fields[part]
        model = section_of(field.annotation)
    return model, field


def section_of(annotation) -> type[BaseModel] | None:
    """The section that a field's annotation holds, if it holds one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = map(section_of, get_args(annotation))
    return next((section for section in found if section), None)


def _describe(where: list[str], values: dict) -> str:
    _, field = _walk(where, values)
    return field.description if field and field.description else "it is required"
