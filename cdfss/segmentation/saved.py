"""Files of what was learnt: safetensors, which hold arrays and text and run nothing when they are read."""

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cdfss.errors import CdfssError
from cdfss.running.files import replacing
from cdfss.segmentation.supports import Support, Supports

FORMAT = "cdfss-segmenter"
VERSION = 1  # of the format; a newer one is refused
Learnt = Mapping[str, Mapping[str, np.ndarray]]  # by class, what `Method.learnt` gave


def write(path: str | Path, supports: Supports, how: Mapping[str, Any], learnt: Learnt) -> None:
    """Write supports at the size that methods see, what made it, and what methods learnt.

    A picture of several classes is written once, and masks a bit a pixel.

    Raises:
        CdfssError: when it cannot be written.
    """
    from safetensors.numpy import save_file

    pictures: dict[int, np.ndarray] = {}
    masks: list[np.ndarray] = []

    def added(mask):
        masks.append(np.packbits(mask, axis=-1))
        return len(masks) - 1

    classes = []
    for label, of in supports.classes.items():
        listed = []
        for one in of:
            pictures[id(one.picture)] = one.picture
            listed.append(
                {
                    "name": one.name,
                    "picture": list(pictures).index(id(one.picture)),
                    "mask": added(one.mask),
                    "unknown": None if one.unknown is None else added(one.unknown),
                }
            )
        classes.append(
            {
                "name": label,
                "value": supports.values[label],
                "colour": list(supports.colours[label]),
                "supports": listed,
            }
        )
    arrays = {"pictures": np.stack(list(pictures.values())), "masks": np.stack(masks)}
    for number, label in enumerate(supports.classes):
        for key, value in learnt.get(label, {}).items():
            arrays[f"learnt.{number}.{key}"] = np.ascontiguousarray(value)
    facts = {"how": how, "complete": supports.complete, "classes": classes}
    # One entry: several would be written in a random order.
    entry = {"format": f"{FORMAT}-{VERSION}", **facts, "sha256": _digest(facts, arrays)}
    with replacing(path) as temporary:
        save_file(arrays, temporary, {"cdfss": json.dumps(entry, sort_keys=True)})


def read(path: str | Path) -> tuple[Supports, dict[str, Any], Learnt]:
    """What `write` wrote.

    Raises:
        CdfssError: for a file that is not there, damaged, of another kind or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "not there"
        raise CdfssError(f"{path} is {what}; expected a file that Segmenter.save or cdfss fit has written")
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("cdfss", "{}")
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no dictionary
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    entry = _entry(path, text)
    facts: dict[str, Any] = {key: entry.get(key) for key in ("how", "complete", "classes")}
    if entry.get("sha256") != _digest(facts, arrays):
        raise _damaged(path, "its content is not what was written")
    try:
        return _supports(facts, arrays), facts["how"], _learnt(facts, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise _damaged(path, error) from error


def _entry(path: str | Path, text: str) -> dict[str, Any]:
    """The metadata of a file of this kind and version."""
    try:
        entry = json.loads(text)
        kind = entry.get("format", "")
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    found = re.fullmatch(rf"{FORMAT}-(\d+)", str(kind))
    if found is None:
        what = f"of the kind {kind!r}" if kind else "of some other program"
        raise CdfssError(
            f"{path} is a safetensors file {what}; expected one that Segmenter.save or cdfss fit has "
            "written. A source-trained model is given as checkpoint"
        )
    if int(found[1]) > VERSION:
        made = entry.get("how", {}).get("made_with", {}).get("cdfss", "a newer version")
        raise CdfssError(
            f"{path} was written by cdfss {made}, in a form that this one ({version('cdfss')}) does not "
            "know; install that version or a newer one"
        )
    return entry


def _supports(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Supports:
    pictures, packed, size = list(arrays["pictures"]), arrays["masks"], facts["how"]["size"]
    if arrays["pictures"].shape[1:] != (size, size, 3) or arrays["pictures"].dtype != np.uint8:
        raise ValueError(f"pictures of {arrays['pictures'].shape}, {arrays['pictures'].dtype}")

    def mask(number):
        return None if number is None else np.unpackbits(packed[number], axis=-1, count=size).view(bool)

    classes = {
        of["name"]: [
            Support(one["name"], pictures[one["picture"]], mask(one["mask"]), mask(one["unknown"]))
            for one in of["supports"]
        ]
        for of in facts["classes"]
    }
    return Supports(
        classes,
        {of["name"]: of["value"] for of in facts["classes"]},
        {of["name"]: tuple(of["colour"]) for of in facts["classes"]},
        facts["complete"],
        facts["how"]["value_range"] and tuple(facts["how"]["value_range"]),
    )


def _learnt(facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Learnt:
    found: dict[str, dict[str, np.ndarray]] = {}
    for number, of in enumerate(facts["classes"]):
        start = f"learnt.{number}."
        found[of["name"]] = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
    return found


def _digest(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Of all that a file holds, 64 hexadecimal digits."""
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(arrays):
        found.update(f"{key} {arrays[key].dtype} {arrays[key].shape} ".encode() + arrays[key].tobytes())
    return found.hexdigest()


def _damaged(path: str | Path, why: object) -> CdfssError:
    return CdfssError(
        f"{path} cannot be read ({' '.join(str(why).split())[:200]}): it is damaged, cut short, or no file "
        "that Segmenter.save or cdfss fit has written; fit again"
    )
