"""Evaluation rows: the contract between evaluation and every table and figure. No torch here."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cdfss.errors import CdfssError
from cdfss.files import replacing

SCHEMA = pa.schema(
    [
        ("domain", pa.string()),
        ("variant", pa.string()),
        ("shot", pa.int32()),
        ("seed", pa.int32()),
        ("episode", pa.int32()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("query", pa.string()),
        ("supports", pa.list_(pa.string())),
        ("intersection_background", pa.int64()),  # pixels at the configured image size
        ("intersection_foreground", pa.int64()),
        ("union_background", pa.int64()),
        ("union_foreground", pa.int64()),
        ("first_loss", pa.float32()),  # null where nothing is tuned
        ("last_loss", pa.float32()),
        ("steps", pa.int32()),
        ("learning_rate", pa.float64()),
        ("seconds", pa.float64()),  # adaptation and prediction
    ]
)
PREDICTIONS = pa.schema([("episode", pa.int32()), ("mask", pa.binary())])


def save(rows: list[dict], path: str | Path, facts: dict) -> None:
    """Write evaluation rows; `facts` (settings, checkpoint, versions, device) go into metadata."""
    table = pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({"cdfss": json.dumps(facts)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def save_predictions(predictions: dict[int, np.ndarray], path: str | Path) -> None:
    """Write predicted masks (S, S) of 0 and 1 by episode, as one-bit PNG files in a column."""
    rows = []
    for episode, mask in predictions.items():
        buffer = io.BytesIO()
        Image.fromarray(mask.astype(bool)).save(buffer, format="PNG")
        rows.append({"episode": episode, "mask": buffer.getvalue()})
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, PREDICTIONS), temporary)


def load(paths) -> pd.DataFrame:
    """All evaluation rows of files, or of folders with .parquet files below `rows`, as one frame.

    Raises:
        CdfssError: when there is none.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files = []
    for path in map(Path, paths):
        files += sorted(path.glob("**/rows/**/*.parquet")) if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    if not files:
        raise CdfssError(f"no evaluation rows in {', '.join(map(str, paths))}")
    tables = [pq.read_table(file).replace_schema_metadata() for file in files]
    return pa.concat_tables(tables).to_pandas()


def facts(path: str | Path) -> dict:
    """Metadata of a rows file."""
    return json.loads(pq.read_schema(path).metadata[b"cdfss"])


def load_predictions(paths) -> dict[int, np.ndarray]:
    """Predicted masks (S, S) bool by episode."""
    masks = {}
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            with Image.open(io.BytesIO(row["mask"])) as image:
                masks[row["episode"]] = np.array(image).astype(bool)
    return masks


def counts(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (N, 2), background first, as `cdfss.metrics` takes them."""
    return tuple(
        rows[[f"{kind}_background", f"{kind}_foreground"]].to_numpy() for kind in ("intersection", "union")
    )
