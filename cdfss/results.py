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
        ("parameters_added", pa.int64()),  # of masker and attention
        ("parameters_tuned", pa.int64()),  # of the parts that steps change
        ("seconds", pa.float64()),  # adaptation and prediction
        ("peak_memory_mb", pa.float32()),  # of the job so far: the GPU's, or the process's
        ("device", pa.string()),  # cpu, or the GPU's name
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
    for file, table in zip(files, tables):
        lacks = [name for name in SCHEMA.names if name not in table.column_names]
        if lacks:
            raise CdfssError(
                f"{file} has no column {', '.join(lacks)}: it was made by an older version of cdfss. Make "
                "the rows again: snakemake -R evaluate evaluate_trivial"
            )
    return pa.concat_tables(tables).to_pandas()


def load_listed(paths) -> pd.DataFrame | None:
    """`load` of a list of files; None for an empty list, where a run has no variant of some kind."""
    return load(paths) if list(paths) else None


def facts(path: str | Path) -> dict:
    """Metadata of a rows file."""
    return json.loads(pq.read_schema(path).metadata[b"cdfss"])


def load_predictions(paths, episodes=None) -> dict[int, np.ndarray]:
    """Predicted masks (S, S) bool by episode, of all or of some episodes."""
    masks, wanted = {}, None if episodes is None else [("episode", "in", list(episodes))]
    for path in paths:
        for row in pq.read_table(path, filters=wanted).to_pylist():
            with Image.open(io.BytesIO(row["mask"])) as image:
                masks[row["episode"]] = np.array(image).astype(bool)
    return masks


def predictions_by_variant(paths, variants, episodes) -> dict[str, dict[int, np.ndarray]]:
    """`load_predictions` of each variant, which is the folder two above its files."""
    by_variant: dict[str, list] = {variant: [] for variant in variants}
    for path in paths:
        by_variant[Path(path).parts[-3]].append(path)
    return {variant: load_predictions(files, episodes) for variant, files in by_variant.items()}


def iou(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `iou`: foreground IoU of the episode in 0..1, 0 where the union is empty."""
    return rows.assign(iou=rows["intersection_foreground"] / rows["union_foreground"].clip(lower=1))


def ranked_episodes(rows: pd.DataFrame, variant: str, number: int) -> list[int]:
    """`number` episodes of one list at even distances by a variant's IoU, from the worst to the best."""
    mine = iou(rows[rows["variant"] == variant]).sort_values(["iou", "episode"])["episode"].tolist()
    number = min(number, len(mine))
    return [mine[round(i * (len(mine) - 1) / max(number - 1, 1))] for i in range(number)]


def counts(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (N, 2), background first, as `cdfss.metrics` takes them."""
    return tuple(
        rows[[f"{kind}_background", f"{kind}_foreground"]].to_numpy() for kind in ("intersection", "union")
    )
