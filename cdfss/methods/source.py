"""Which source-trained model a file holds (no torch)."""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cdfss.running.files import replacing
from cdfss.running.provenance import damaged, digest


def identity(path: str | Path) -> str:
    """16 hexadecimal digits that stand for the tensors of a file of ours, not for who wrote it when.

    Raises:
        CdfssError: when it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with safe_open(path, "np") as file:
            for key in sorted(file.keys()):
                value = file.get_tensor(key)
                found.update(f"{key} {value.dtype} {value.shape} ".encode() + value.tobytes())
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    return found.hexdigest()[:16]


def training(path: str | Path) -> str:
    """16 hexadecimal digits that stand for what a model was trained on and how, whatever its seed.

    Returns:
        "given" for a model that was not trained in a run.

    Raises:
        CdfssError: when the file cannot be read.
    """
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get("cdfss", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    if "settings" not in facts:
        return "given"
    settings = {key: value for key, value in facts["settings"].items() if key != "seed"}
    return digest([settings, facts["source"], facts["validation"]])


def write_identity(checkpoint: str | Path, path: str | Path) -> None:
    """Write the small file by which jobs see whether a checkpoint changed."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"identity": identity(checkpoint)}) + "\n")
