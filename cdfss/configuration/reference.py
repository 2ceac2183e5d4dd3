"""config/README.md and config/schema.json, from the models of the configuration."""

import json
from importlib import resources
from pathlib import Path

from cdfss.configuration.mistakes import section_of
from cdfss.configuration.schema import (
    Adaptation,
    Analysis,
    Compute,
    Configuration,
    Data,
    Domain,
    OfFPTrans,
    OfHost,
    Primary,
    Section,
    Source,
    Validation,
    Variant,
)
from cdfss.methods import known
from cdfss.methods.modules import known as modules


def schema() -> str:
    """JSON schema of the configuration, for editors."""
    found = Configuration.model_json_schema()
    del found["required"]  # a file without a name adds to another, which has them
    return json.dumps(found, indent=1) + "\n"


def reference() -> str:
    """config/README.md: every key with its meaning, type, default and allowed values."""
    head = resources.files("cdfss.configuration").joinpath("reference_head.md").read_text()
    lines = [head.rstrip(), ""]
    for title, prefix, model in (
        ("Top level", "", Configuration),
        ("A data set", "data.<name>.", Data),
        ("Source training", "source.", Source),
        ("Source training of PATNet", "source.patnet.", OfHost),
        ("Source training of FPTrans", "source.fptrans.", OfFPTrans),
        ("Validation of the source training", "source.validation.", Validation),
        ("How jobs compute", "compute.", Compute),
        ("A target domain", "domains.<name>.", Domain),
        ("Adaptation", "adaptation.", Adaptation),
        ("Analyses", "analysis.", Analysis),
        ("The primary comparison", "primary.", Primary),
        ("A variant", "variants.<name>.", Variant),
        *(
            (f"A variant with method: {name}", "variants.<name>.", known.find(name).Settings)
            for name in known.METHODS
        ),
        *(
            (f"Module {name}", f"variants.<name>.modules.{name}.", modules.find(name).Settings)
            for name in modules.MODULES
        ),
    ):
        if not model.model_fields:
            continue
        lines += [f"## {title}", "", "| key | meaning | allowed | default |", "|-|-|-|-|"]
        properties = model.model_json_schema(mode="validation")["properties"]
        for key, field in model.model_fields.items():
            if section_of(field.annotation) and not field.description:
                continue
            default = "required" if field.is_required() else f"`{json.dumps(_plain(field.default))}`"
            if isinstance(field.default, Section):
                default = "below"
            lines.append(
                f"| `{prefix}{key}` | {field.description} | {_allowed(properties[key])} | {default} |"
            )
        lines.append("")
    return "\n".join(lines)


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _allowed(property_: dict) -> str:
    """Allowed values of a JSON schema property in words."""
    if "anyOf" in property_:
        return " or ".join(dict.fromkeys(_allowed(option) for option in property_["anyOf"]))
    if "enum" in property_:
        return ", ".join(f"`{value}`" for value in property_["enum"])
    if "const" in property_:
        return f"`{property_['const']}`"
    kind = property_.get("type", "section")
    if kind == "null":
        return "empty"
    if kind == "array":
        items = property_.get("items") or property_.get("prefixItems", [{}])[0]
        return f"list of {_allowed(items)}"
    if kind == "object":
        values = property_.get("additionalProperties") or property_.get("patternProperties")
        first = values if isinstance(values, dict) and "$ref" not in values else {}
        if first and "type" not in first:
            first = next(iter(first.values()))
        return f"name: {_allowed(first)}" if first.get("type") else "name: section"
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    words = names.get(kind, kind)
    for sign, key in (("≥", "minimum"), (">", "exclusiveMinimum"), ("≤", "maximum")):
        if key in property_:
            words += f" {sign} {property_[key]}"
    return words
