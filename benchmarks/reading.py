"""Reading an episode of 12-megapixel pictures, raw and prepared: `python benchmarks/reading.py`."""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cdfss.configuration.schema import Data
from cdfss.data import index, resizing
from cdfss.data.resized import Resized

SIZE = 400  # pixels of a side, as in the paper's run


def make_pictures(root: Path, number: int = 6, width: int = 4000, height: int = 3000) -> None:
    """JPEG pictures of soft noise with PNG masks of a disc, in the layout of one's own data set."""
    generator = np.random.RandomState(0)
    rows, columns = np.ogrid[:height, :width]
    for kind in ("images", "masks"):
        (root / "lesion" / kind).mkdir(parents=True)
    for name in range(number):
        small = Image.fromarray(generator.randint(0, 256, (height // 20, width // 20, 3)).astype(np.uint8))
        picture = small.resize((width, height), Image.Resampling.BICUBIC)
        picture.save(root / "lesion" / "images" / f"{name}.jpg", quality=90)
        disc = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / (3 + name)) ** 2
        Image.fromarray(disc.astype(np.uint8) * 255).save(root / "lesion" / "masks" / f"{name}.png")


def read(pictures: index.Index, shot: int) -> None:
    """What an evaluation reads for an episode."""
    query, *supports = (pictures.rows.loc[number] for number in range(shot + 1))
    pictures.read_image(query, SIZE)
    pictures.read_whole_mask(query, SIZE)
    for row in supports:
        pictures.read(row, SIZE)


def median(pictures: index.Index, shot: int, repeats: int) -> float:
    """Seconds of an episode, the median of some."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        read(pictures, shot)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def measure() -> dict[str, float]:
    """Medians in seconds, by shots and by where pictures are read from."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "pictures")
        make_pictures(root)
        settings = Data(format="folder", root=root).model_dump(mode="json") | {"name": "large"}
        raw = index.build(settings | {"folder": folder}, Path(folder, "index.parquet"), 2, lambda _: None)
        resizing.prepare(raw, raw.rows, SIZE, Path(folder, "prepared"), 2, lambda _: None)
        prepared = replace(raw, resized=Resized(Path(folder, "prepared"), raw.identity, SIZE))
        found = {}
        for shot in (1, 5):
            found[f"{shot}-shot, raw"] = median(raw, shot, 5)
            found[f"{shot}-shot, prepared"] = median(prepared, shot, 200)
        return found


if __name__ == "__main__":
    for name, seconds in measure().items():
        print(f"reading a {name:16} {1000 * seconds:8.2f} ms")
