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


def save(rows: list[dict], path: str | Path, facts: dict, schema: pa.Schema = SCHEMA) -> None:
    """Write rows; `facts` (`evaluation.origin`) go into the file's metadata."""
    table = pa.Table.from_pylist(rows, schema).replace_schema_metadata({"cdfss": json.dumps(facts)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def save_predictions(predictions: dict[int, np.ndarray], path: str | Path, facts: dict) -> None:
    """Write predicted masks (S, S) of 0 and 1 by episode, as one-bit PNG files in a column."""
    rows = []
    for episode, mask in predictions.items():
        buffer = io.BytesIO()
        Image.fromarray(mask.astype(bool)).save(buffer, format="PNG")
        rows.append({"episode": episode, "mask": buffer.getvalue()})
    save(rows, path, facts, PREDICTIONS)


def load(paths) -> pd.DataFrame:
    """All evaluation rows of files, or of the files of rows in and below folders, as one frame.

    Args:
        paths: one or several; of a folder all rows are taken, also those of variants that a
            configuration no longer has.

    Raises:
        CdfssError: when there is none, a file is of an older version, an episode is there twice, or
            rows are of pictures of several sizes.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files = []
    for path in map(Path, paths):
        files += filter(_holds_rows, sorted(path.rglob("*.parquet"))) if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    if not files:
        raise CdfssError(f"no evaluation rows in {', '.join(map(str, paths))}")
    tables, sizes = [], {}
    for file in files:
        table = pq.read_table(file)
        size = _facts(table.schema).get("settings", {}).get("image_size")
        if size is not None:
            sizes[size] = file
        tables.append(table.replace_schema_metadata())
        lacks = [name for name in SCHEMA.names if name not in table.column_names]
        if lacks:
            raise CdfssError(
                f"{file} has no column {', '.join(lacks)}: it was made by an older version of cdfss. Make "
                "the rows again: snakemake -R evaluate evaluate_trivial"
            )
    if len(sizes) > 1:
        named = "; ".join(f"{file} of {size} px" for size, file in sizes.items())
        raise CdfssError(
            f"rows of pictures of several sizes: {named}. Load one run at a time, and remove files that "
            "an earlier configuration left behind"
        )
    rows = pa.concat_tables(tables).to_pandas()
    key = ["domain", "variant", "shot", "seed", "episode"]
    twice = rows[rows.duplicated(key)]
    if len(twice):
        first = twice.iloc[0]
        held = [
            str(file)
            for file, table in zip(files, tables)
            if any(all(row[k] == first[k] for k in key) for row in table.select(key).to_pylist())
        ]
        raise CdfssError(
            f"episode {first.episode} of {first.domain}, {first.variant}, {first.shot}-shot, seed "
            f"{first.seed} is there twice, in {' and '.join(held)}: load one run at a time, and remove "
            "files that an earlier configuration (more `shards`) left behind"
        )
    return rows


def _holds_rows(file: Path) -> bool:
    """Whether a file has evaluation rows, not predictions or measurements."""
    return {"variant", "intersection_foreground"} <= set(pq.read_schema(file).names)


def load_listed(paths) -> pd.DataFrame | None:
    """`load` of a list of files; None for an empty list, where a run has no variant of some kind."""
    return load(paths) if list(paths) else None


def facts(path: str | Path) -> dict:
    """Metadata of a file of rows, predictions or measurements (`evaluation.origin`).

    Raises:
        CdfssError: when it has none.
    """
    found = _facts(pq.read_schema(path))
    if not found:
        raise CdfssError(
            f"{path} does not say what it was made from: it was made by an older version of cdfss. Make "
            "it again: snakemake -R evaluate evaluate_trivial"
        )
    return found


def _facts(schema: pa.Schema) -> dict:
    return json.loads((schema.metadata or {}).get(b"cdfss", b"{}"))


def load_predictions(paths, episodes=None) -> dict[int, np.ndarray]:
    """Predicted masks (S, S) bool by episode, of all or of some episodes."""
    masks, wanted = {}, None if episodes is None else [("episode", "in", list(episodes))]
    for path in paths:
        for row in pq.read_table(path, filters=wanted).to_pylist():
            with Image.open(io.BytesIO(row["mask"])) as image:
                masks[row["episode"]] = np.array(image).astype(bool)
    return masks


def predictions_by_variant(paths, variants, episodes) -> dict[str, dict[int, np.ndarray]]:
    """`load_predictions` of each variant; whose masks a file holds, its metadata says."""
    by_variant: dict[str, list] = {variant: [] for variant in variants}
    for path in paths:
        by_variant[facts(path)["settings"]["variant"]].append(path)
    return {variant: load_predictions(files, episodes) for variant, files in by_variant.items()}


def iou(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with a column `iou`: foreground IoU of the episode in 0..1, 0 where the union is empty."""
    return rows.assign(iou=rows["intersection_foreground"] / rows["union_foreground"].clip(lower=1))


def ranked_episodes(rows: pd.DataFrame, variant: str, number: int) -> list[int]:
    """`number` episodes of one list at even distances by a variant's IoU, from the worst to the best."""
    mine = _from_worst_to_best(rows, variant)
    number = min(number, len(mine))
    return [mine[i * (len(mine) - 1) // max(number - 1, 1)] for i in range(number)]


def median_episode(rows: pd.DataFrame, variant: str) -> int:
    """The median episode of one list by a variant's IoU; of an even number the worse in the middle.

    It is the second of three `ranked_episodes`.
    """
    mine = _from_worst_to_best(rows, variant)
    return mine[(len(mine) - 1) // 2]


def _from_worst_to_best(rows: pd.DataFrame, variant: str) -> list[int]:
    return iou(rows[rows["variant"] == variant]).sort_values(["iou", "episode"])["episode"].tolist()


def count_columns(intersection, union) -> dict[str, int]:
    """The columns of one episode's pixel counts, (2,) each, background first."""
    return {
        f"{kind}_{where}": int(pixels)
        for kind, both in (("intersection", intersection), ("union", union))
        for where, pixels in zip(("background", "foreground"), both, strict=True)
    }


def counts(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (N, 2), background first, as `cdfss.metrics` takes them."""
    return tuple(
        rows[[f"{kind}_background", f"{kind}_foreground"]].to_numpy() for kind in ("intersection", "union")
    )
