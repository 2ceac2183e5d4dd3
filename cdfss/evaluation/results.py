"""Evaluation rows: the contract between evaluation and every table and figure. No torch here."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cdfss.data import metrics
from cdfss.errors import CdfssError, again
from cdfss.running import provenance
from cdfss.running.files import replacing

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
        ("parameters_added", pa.int64()),  # of modules
        ("parameters_tuned", pa.int64()),  # of the parts that steps change
        # Null in rows of version 0.2 and before, and where a method has no such thing.
        ("source", pa.int32()),  # seed of the source training; none of a given model
        ("most_votes", pa.int32()),  # that a pixel of the query got, of the supports
        ("voted_pixels", pa.int64()),  # that the published rule decides otherwise than a majority
        ("supports_unseen", pa.int32()),  # whose mask holds no stride-32 position
        ("original_intersection_background", pa.int64()),  # pixels at the query's own size
        ("original_intersection_foreground", pa.int64()),
        ("original_union_background", pa.int64()),
        ("original_union_foreground", pa.int64()),
    ]
)
MAY_LACK = SCHEMA.names[SCHEMA.get_field_index("source") :]
KEY = ["domain", "variant", "shot", "seed", "source", "episode"]
# What no second run gives again, in files of its own so that all others can be compared byte by byte.
COST = pa.schema(
    [
        *(SCHEMA.field(name) for name in KEY),
        ("seconds", pa.float64()),  # of both that follow
        ("fit_seconds", pa.float64()),  # to the supports
        ("predict_seconds", pa.float64()),  # of the query
        ("peak_memory_mb", pa.float32()),  # of the job so far: the GPU's, or the process's
        ("device", pa.string()),  # cpu, or the GPU's name
    ]
)
PREDICTIONS = pa.schema([("episode", pa.int32()), ("mask", pa.binary())])


def save(rows: list[dict], path: str | Path, facts: dict, schema: pa.Schema = SCHEMA) -> None:
    """Write rows; `facts` (`evaluate.origin`) go into the file's metadata."""
    table = provenance.with_facts(pa.Table.from_pylist(rows, schema), facts)
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def save_predictions(predictions: dict[int, np.ndarray], path: str | Path, facts: dict) -> None:
    """Write predicted masks (S, S) of 0 and 1 by episode, as one-bit PNG files in a column."""
    rows = [{"episode": episode, "mask": encoded(mask)} for episode, mask in predictions.items()]
    save(rows, path, facts, PREDICTIONS)


def encoded(mask: np.ndarray) -> bytes:
    """A mask (S, S) of 0 and 1 as a one-bit PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(buffer, format="PNG")
    return buffer.getvalue()


def decoded(content: bytes) -> np.ndarray:
    """A mask (S, S) bool from its PNG file; Pillow's errors for one that is damaged."""
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image).astype(bool)


def load(paths) -> pd.DataFrame:
    """All evaluation rows of files, or of the files of rows in and below folders, as one frame.

    Args:
        paths: one or several; of a folder all rows are taken, also those of variants that a
            configuration no longer has.

    Returns:
        The columns of SCHEMA, `source` as pandas' nullable "Int32".

    Raises:
        CdfssError: when there is none, a file is damaged or of an older version, an episode is there
            twice, or files do not belong together (`provenance.must_agree`).
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    files = []
    for path in map(Path, paths):
        files += filter(_holds_rows, _below(path)) if path.is_dir() else [path]
    files = [file for file in files if file.is_file()]
    if not files:
        raise CdfssError(f"no evaluation rows in {', '.join(map(str, paths))}")
    tables, made = [], {}
    for file in files:
        table = provenance.read_table(file)
        made[file] = provenance.facts(table.schema)
        for name in MAY_LACK:
            if name not in table.column_names:
                table = table.append_column(
                    SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type)
                )
        lacks = [name for name in SCHEMA.names if name not in table.column_names]
        if lacks:
            raise CdfssError(
                f"{file} has no column {', '.join(lacks)}: it was made by an older version of cdfss. To "
                f"make the rows anew, {again('evaluate', 'evaluate_on_processor')}"
            )
        # Rows of version 0.1 hold what is in files of its own now.
        tables.append(table.select(SCHEMA.names).replace_schema_metadata())
    provenance.must_agree(made)
    rows = pa.concat_tables(tables).to_pandas().astype({"source": "Int32"})
    twice = rows[rows.duplicated(KEY)]
    if len(twice):
        first = twice.iloc[0]
        numbers = rows.groupby(KEY, dropna=False).ngroup()
        of_file = np.repeat(range(len(files)), [len(table) for table in tables])
        held = dict.fromkeys(str(files[i]) for i in of_file[numbers == numbers[first.name]])
        source = "" if pd.isna(first.source) else f", source seed {first.source}"
        raise CdfssError(
            f"episode {first.episode} of {first.domain}, {first.variant}, {first.shot}-shot, seed "
            f"{first.seed}{source} is there twice, in {' and '.join(held)}: load one run at a time, and "
            "remove files that an earlier configuration (more `shards`) left behind"
        )
    return rows


def of_source(rows: pd.DataFrame, source: int | None) -> pd.DataFrame:
    """Rows of one source model and those that need none.

    Args:
        source: one of `Jobs.sources`.
    """
    of_none = rows["source"].isna()
    return rows[of_none if source is None else of_none | rows["source"].eq(source).fillna(False)]


def _below(folder: Path) -> list[Path]:
    """Files of Parquet, but for those that jobs keep of the same rows (`kept/rows/`)."""
    files = sorted(folder.rglob("*.parquet"))
    return [file for file in files if "/kept/rows/" not in file.as_posix()]


def _holds_rows(file: Path) -> bool:
    """Whether a file has evaluation rows, not predictions or measurements."""
    return {"variant", "intersection_foreground"} <= set(provenance.read_schema(file).names)


def load_listed(paths) -> pd.DataFrame | None:
    """`load` of a list of files; None for an empty list, where a run has no variant of some kind."""
    return load(paths) if list(paths) else None


def with_cost(rows: pd.DataFrame, paths) -> pd.DataFrame:
    """Rows with the columns of COST, from the files of the same jobs.

    Raises:
        CdfssError: when they are of other episodes.
    """
    tables = [provenance.read_table(path).replace_schema_metadata() for path in paths]
    # Version 0.1 did not tell fit from prediction, nor 0.2 the source: there these are unknown.
    cost = pa.concat_tables(tables, promote_options="default").to_pandas().reindex(columns=COST.names)
    cost["source"] = cost["source"].astype("Int32")
    both = rows.merge(cost, on=KEY, how="left", validate="one_to_one")
    lacking = both[both["seconds"].isna()]
    if len(lacking):
        first = ", ".join(str(value) for value in lacking.iloc[0][KEY].dropna())
        raise CdfssError(
            f"{len(lacking)} rows have no seconds, first {first}; their files in cost/ are of other "
            f"episodes. To make both anew, {again('evaluate', 'evaluate_on_processor')}"
        )
    return both


def facts(path: str | Path) -> dict:
    """Metadata of a file of rows, predictions or measurements (`evaluate.origin`).

    Raises:
        CdfssError: when it has none.
    """
    found = provenance.facts(provenance.read_schema(path))
    if not found:
        raise CdfssError(
            f"{path} does not say what it was made from: it was made by an older version of cdfss. To "
            f"make it anew, {again('evaluate', 'evaluate_on_processor')}"
        )
    return found


def load_predictions(paths, episodes=None) -> dict[int, np.ndarray]:
    """Predicted masks (S, S) bool by episode, of all or of some episodes."""
    masks, wanted = {}, None if episodes is None else [("episode", "in", list(episodes))]
    for path in paths:
        try:
            for row in provenance.read_table(path, filters=wanted).to_pylist():
                masks[row["episode"]] = decoded(row["mask"])
        except (OSError, ValueError, KeyError, SyntaxError, TypeError) as error:  # also Pillow's
            raise provenance.damaged(path, error) from error
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


def count_columns(intersection, union, size: str = "") -> dict[str, int]:
    """The columns of one episode's pixel counts, (2,) each, background first.

    Args:
        size: "original_" for counts at the query's own size.
    """
    return {
        f"{size}{kind}_{where}": int(pixels)
        for kind, both in (("intersection", intersection), ("union", union))
        for where, pixels in zip(("background", "foreground"), both, strict=True)
    }


def counts(rows: pd.DataFrame, size: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union (N, 2), background first, as `cdfss.data.metrics` takes them.

    Args:
        size: as `count_columns`.
    """
    return tuple(
        rows[[f"{size}{kind}_{where}" for where in ("background", "foreground")]].to_numpy(np.int64)
        for kind in ("intersection", "union")
    )


def batchwise_miou(rows: pd.DataFrame) -> float:
    """`metrics.batchwise_miou` of one list's rows, in 0..1, with the batch of IFA's own script."""
    rows = rows.sort_values("episode")
    batch = metrics.BATCH_OF_IFA.get(int(rows["shot"].iloc[0]), metrics.BATCH_OF_IFA[5])
    return metrics.batchwise_miou(*counts(rows), rows["class_id"], batch)


def original_miou(rows: pd.DataFrame) -> float | None:
    """mIoU of one list's rows at each query's own size, in 0..1; None for rows that do not have it."""
    if rows["original_union_foreground"].isna().any():
        return None
    return metrics.mean_iou(*counts(rows, "original_"), rows["class_id"])
