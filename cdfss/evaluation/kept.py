"""What jobs keep of what they computed: their outputs are deleted before a job runs again."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cdfss.errors import CdfssError
from cdfss.evaluation import results
from cdfss.running import provenance
from cdfss.running.files import replacing

# Facts that decide what rows hold, so that tables compare them. Others say who made the rows when.
DECIDING = (
    "index",
    "episodes",
    "settings",
    "kind",
    "code",
    "method",
    "method_codes",
    "device",
    "precision",
    "backbone",
    "weights",
    "checkpoint",
    "training",
)


@dataclass
class Found:
    """What was kept of a variant.

    Attributes:
        records: rows by kind of file, of the episodes that all files have; more than one a episode
            where so many are made.
        facts: of the files; None where these differ, or there are none.
    """

    records: dict[str, list[dict]]
    facts: dict | None

    @property
    def episodes(self) -> set[int]:
        """Numbers of the episodes."""
        return {record["episode"] for records in self.records.values() for record in records}

    @property
    def number(self) -> int:
        """Of all records."""
        return sum(map(len, self.records.values()))

    def may_go_on(self, facts: dict) -> bool:
        """Whether what is made with these facts may stand in the same files."""
        return self.facts == _plain(facts)


class Kept:
    """Files of one variant, one of each kind, whole or of some episodes so far.

    Args:
        folder: theirs alone.
        schemas: by kind; each has a column `episode`.
    """

    def __init__(self, folder: str | Path, schemas: dict[str, pa.Schema]):
        self.folder, self.schemas = Path(folder), schemas

    def load(self, facts: dict) -> Found:
        """What is there and was made as it would be made now.

        A file that is damaged, of other columns, or that differs from `facts` in one of DECIDING counts as
        none.

        Args:
            facts: as far as they are in DECIDING.
        """
        nothing = Found({kind: [] for kind in self.schemas}, None)
        wanted, tables = _deciding(_plain(facts)), {}
        for kind, schema in self.schemas.items():
            try:
                table = provenance.read_table(self._path(kind))
            except CdfssError:
                return nothing
            found = provenance.facts(table.schema)
            if not table.schema.equals(schema) or _deciding(found) != wanted:
                return nothing
            tables[kind] = table
        # They are written one after the other, so that the first may know of more episodes than the last.
        common = set.intersection(*(set(table["episode"].to_pylist()) for table in tables.values()))
        records = {
            kind: [record for record in table.to_pylist() if record["episode"] in common]
            for kind, table in tables.items()
        }
        said = [provenance.facts(table.schema) for table in tables.values()]
        return Found(records, said[0] if all(one == said[0] for one in said) else None)

    def save(self, records: dict[str, list[dict]], facts: dict) -> None:
        """Write the files of all kinds, each whole or not at all."""
        for kind, schema in self.schemas.items():
            results.save(records[kind], self._path(kind), facts, schema)

    def give(self, paths: dict[str, str | Path]) -> None:
        """Put the files, by kind, to other paths as well: hard links, or copies where there are none."""
        for kind, path in paths.items():
            with replacing(path) as temporary:
                temporary.unlink()
                try:
                    os.link(self._path(kind), temporary)
                except OSError:
                    shutil.copyfile(self._path(kind), temporary)
                os.utime(temporary)  # newer than what it is made from, whenever that was

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}.parquet"


def _plain(facts: dict) -> dict:
    """Facts as they come back from a file."""
    return provenance.facts(provenance.with_facts(pa.table({}), facts).schema)


def _deciding(facts: dict) -> dict:
    return {key: facts[key] for key in DECIDING if key in facts}
