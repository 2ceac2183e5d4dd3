"""Episode lists: which query and which supports, drawn as the published benchmark draws them.

A list is made once per (domain, shot, seed); all variants run on it, so comparisons are paired.
Columns of the file: episode, class_id, class_name, query, supports. Query and supports are row
numbers of the index (`query_row`, `support_rows`) and, for people, image paths.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cdfss.running import provenance
from cdfss.running.provenance import digest
from cdfss.data.index import Index
from cdfss.data.index import load as load_index
from cdfss.errors import CdfssError, again
from cdfss.running.files import replacing

SCHEMA = pa.schema(
    [
        ("episode", pa.int32()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("query", pa.string()),
        ("supports", pa.list_(pa.string())),
        ("query_row", pa.int32()),
        ("support_rows", pa.list_(pa.int32())),
    ]
)


def sample(
    index: Index, protocol: str = "patnet", *, split: str, shot: int, seed: int, number: int
) -> pd.DataFrame:
    """Draw episodes.

    The "patnet" protocol: one NumPy generator for the whole list; FSS-1000 takes every image in
    order as query, the other data sets take class = number mod classes and draw the query; then
    supports one by one, drawn again while equal to the query. Supports of one episode may repeat.

    Args:
        number: of episodes. On FSS-1000 the full list (one episode an image) is always drawn and
            `number` of its episodes are taken at even distances, so that a short list is a sample
            of the published one and keeps its episode numbers.

    Returns:
        DataFrame with the columns of SCHEMA.

    Raises:
        CdfssError: for an unknown protocol, an empty split, a class smaller than `shot`, or more
            FSS-1000 episodes than images.
    """
    if protocol != "patnet":
        raise CdfssError(f"episodes: protocol {protocol!r} is unknown; there is 'patnet'")
    rows = index.of_split(split)
    members = {int(c): group.index.to_numpy() for c, group in rows.groupby("class_id", sort=True)}
    check_class_sizes(index.name, {c: len(m) for c, m in members.items()}, rows, shot)
    generator = np.random.RandomState(seed)
    in_order = index.format == "fss1000"
    if in_order:  # supports are drawn by their number, queries listed by their name as a string
        images = rows["image"]
        members = {c: np.array(sorted(m, key=lambda row: _number(images[row]))) for c, m in members.items()}
    length = len(rows) if in_order else number
    if number > length:
        raise CdfssError(
            f"domains.{index.name}.episodes is {number}; split {split!r} has {length} images and "
            "each is a query once, so at most that many"
        )
    classes = list(members)
    episodes = []
    for episode in range(length):
        if in_order:
            query = int(rows.index[episode])
            class_id = int(rows["class_id"].iloc[episode])
        else:
            class_id = classes[episode % len(classes)]
            query = _draw(generator, members[class_id])
        supports = []
        while len(supports) < shot:
            support = _draw(generator, members[class_id])
            if support != query:
                supports.append(support)
        episodes.append((episode, class_id, query, supports))
    taken = [episodes[i * length // number] for i in range(number)]
    return pd.DataFrame(
        [
            (
                episode,
                class_id,
                rows.at[query, "class_name"],
                rows.at[query, "image"],
                [rows.at[support, "image"] for support in supports],
                query,
                supports,
            )
            for episode, class_id, query, supports in taken
        ],
        columns=SCHEMA.names,
    )


def _number(image: str) -> tuple[int, str]:
    """Sort key of FSS-1000's <class>/<number>.jpg; other names follow as strings."""
    stem = Path(image).stem
    return (int(stem) if stem.isdigit() else sys.maxsize), stem


def _draw(generator: np.random.RandomState, members: np.ndarray) -> int:
    # What numpy.random.choice(members, 1, replace=False) takes from the generator.
    return int(members[generator.permutation(len(members))[0]])


def check_class_sizes(name: str, sizes: dict[int, int], rows: pd.DataFrame, shot: int) -> None:
    """Refuse k-shot episodes of classes with fewer than k pictures, or fewer than 2.

    Raises:
        CdfssError: names the key, the classes and what is allowed.
    """
    least = max(shot, 2)
    short = [c for c, size in sizes.items() if size < least]
    if short:
        names = rows.drop_duplicates("class_id").set_index("class_id")["class_name"]
        shown = ", ".join(f"{names[c]} ({sizes[c]})" for c in short[:10])
        raise CdfssError(
            f"shots: {shot}-shot episodes need at least {least} pictures in every class of "
            f"{name}; too few have: {shown}. Allowed for this data set: shots up to "
            f"{max(min(sizes.values()), 0)}, or leave the classes out"
        )


def save(episodes: pd.DataFrame, path: str | Path, facts: dict) -> None:
    """Write an episode list; `facts` go into its metadata."""
    table = pa.Table.from_pandas(episodes, SCHEMA, preserve_index=False)
    with replacing(path) as temporary:
        pq.write_table(provenance.with_facts(table, facts), temporary)


def run(settings: dict, index_path: str | Path, path: str | Path) -> None:
    """The job of one list: an index in, a list out.

    Args:
        settings: `Jobs.episode_settings`.
    """
    pictures = load_index(index_path)
    facts = {"settings": settings, "index": pictures.identity, **provenance.made_with("numpy")}
    save(sample(pictures, **settings), path, facts)


def load(path: str | Path) -> pd.DataFrame:
    """Read an episode list.

    Raises:
        CdfssError: when it is damaged.
    """
    table = provenance.read_table(path)
    if table.column_names != SCHEMA.names:
        raise CdfssError(f"{path} is no list of episodes. To make it anew, {again('episodes')}")
    return table.to_pandas()


def load_of(path: str | Path, pictures: Index) -> pd.DataFrame:
    """Read the list that was drawn from an index.

    Raises:
        CdfssError: when it was drawn from another one; and as `load`.
    """
    of = provenance.facts(provenance.read_schema(path)).get("index", pictures.identity)
    if of != pictures.identity:
        raise CdfssError(
            f"{path} was drawn from other pictures of {pictures.name} than the index holds. To make it "
            f"anew, {again('episodes')}"
        )
    return load(path)


def identity(episodes: pd.DataFrame) -> str:
    """16 hexadecimal digits that stand for an episode list."""
    return digest([[e.episode, e.class_id, e.query, list(e.supports)] for e in episodes.itertuples()])


def shard(episodes: pd.DataFrame, number: int, of: int) -> pd.DataFrame:
    """The `number`th (from 0) of `of` slices of nearly equal length, in order."""
    begin, end = (len(episodes) * part // of for part in (number, number + 1))
    return episodes.iloc[begin:end]
