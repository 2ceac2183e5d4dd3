"""Time all variants of the demo on one list: in one job, and in a job each, starts included."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE, EPISODES, STEPS = 224, 10, 10
CONFIGURATION = Path(__file__).parents[1] / "config" / "demo.yaml"
FILES = ("index.parquet", "episodes.parquet")


def lists(size: int = SIZE, episodes: int = EPISODES, steps: int = STEPS) -> dict[str, float]:
    """Seconds "together" in one job and "apart" in a process each, and the "ratio" of apart to together.

    Args:
        size: of pictures, pixels.
        episodes: of the list, 1-shot.
        steps: of variants that the demo tunes by its own number of them; others keep theirs.
    """
    with tempfile.TemporaryDirectory() as folder:
        names = _prepare(Path(folder), size, episodes, steps)
        together = _seconds(Path(folder), names)
        apart = sum(_seconds(Path(folder), [name]) for name in names)
    return {"together": together, "apart": apart, "ratio": apart / together}


def _seconds(folder: Path, names: list[str]) -> float:
    begin = time.perf_counter()
    command = [sys.executable, __file__, str(folder), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run(
        command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - begin


def _prepare(folder: Path, size: int, number: int, steps: int) -> list[str]:
    """Write pictures of disks, their index and list, a source model of random weights; variants' names."""
    import numpy as np
    import torch
    from PIL import Image

    from cdfss import HSNet, configuration
    from cdfss.configuration.jobs import Jobs
    from cdfss.configuration.schema import Data
    from cdfss.data import episodes, index
    from cdfss.methods.hsnet import checkpoints

    random = np.random.RandomState(0)
    y, x = np.mgrid[:size, :size]
    for picture in range(12):
        cx, cy, r = random.uniform([0.3, 0.3, 0.15], [0.7, 0.7, 0.3]) * size
        mask = (x - cx) ** 2 + (y - cy) ** 2 < r**2
        image = random.randint(0, 120, (size, size, 3)) + 120 * mask[..., None]
        for kind, pixels in (("images", image), ("masks", 255 * mask)):
            place = folder / "disks" / "disk" / kind
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{picture}.png")
    data = Data(format="folder", root=folder / "disks").model_dump(mode="json")
    data |= {"name": "disks", "folder": str(folder)}
    index.build(data, folder / FILES[0], 1, lambda line: None)
    listed = episodes.sample(index.load(folder / FILES[0]), split="test", shot=1, seed=0, number=number)
    episodes.save(listed, folder / FILES[1], {})
    torch.manual_seed(0)
    state = HSNet("efficientnet_lite0").state_dict()
    learner = {key: value for key, value in state.items() if key.startswith("learner.")}
    checkpoints.save(folder / "source.safetensors", learner, "efficientnet_lite0", {})
    run = configuration.load(CONFIGURATION)
    jobs, variants = Jobs(run), {}
    for name, variant in run.variants.items():
        settings = jobs.evaluation_settings(next(iter(run.domains)), name, 1, 0)
        settings |= {"image_size": size, "shard": 0, "shards": 1}
        if settings["settings"].get("steps") == run.adaptation.steps:
            settings["settings"] = settings["settings"] | {"steps": steps}
        needs_source = variant.method_class.needs == "source"
        checkpoint = str(folder / "source.safetensors") if needs_source else None
        variants[name] = {"settings": settings, "checkpoint": checkpoint, "weights": None}
    (folder / "variants.json").write_text(json.dumps(variants))
    return list(variants)


def _job(folder: Path, names: list[str]) -> None:
    """One job, which keeps nothing that another would take."""
    from cdfss.evaluation import evaluate

    variants = json.loads((folder / "variants.json").read_text())
    compute = {"device": "cpu", "compile": False, "episodes_at_once": "auto"}
    with tempfile.TemporaryDirectory() as made:
        paths = [[Path(made, kind, name) for name in names] for kind in ("rows", "predictions", "cost")]
        inputs = [folder / file for file in FILES]
        evaluate.run({name: variants[name] for name in names}, *inputs, *paths, Path(made, "kept"), compute)


if __name__ == "__main__":
    if sys.argv[1:]:
        _job(Path(sys.argv[1]), sys.argv[2:])
    else:
        print(json.dumps({key: round(value, 2) for key, value in lists().items()}))
