import functools
import http.server
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))


@contextmanager
def serving(handler, **state):
    """A server on loopback that answers by `handler`, which finds `state` on it; it has a `url`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        vars(running).update(state)
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=functools.partial(running.serve_forever, 0.02), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


# A busy machine is no fault of the code.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


def pytest_make_parametrize_id(config, val, argname):
    """No bytes in names of tests: those of an archive hold the time, another one in each process."""
    return argname if isinstance(val, bytes) else None


def write_picture(path, size=(40, 30), mask=None, mode="RGB", seed=0):
    """A random picture (or the given mask) of width x height `size`; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is None:
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        mask = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
    Image.fromarray(mask).save(path)
    return path


def square_mask(size=(40, 30), value=255):
    mask = np.zeros((size[1], size[0]), np.uint8)
    mask[5:20, 10:25] = value
    return mask


def index_settings(root, format="folder", name="mine", **more):
    """Index settings of a data set as the configuration gives them."""
    from cdfss.configuration.schema import Data

    data = Data(format=format, root=root, **more)
    return data.model_dump(mode="json") | {"name": name, "folder": str(root / "work")}


@pytest.fixture
def settings():
    return index_settings


@pytest.fixture
def folder_data(tmp_path):
    """A data set in the folder format: two classes of six pairs."""
    root = tmp_path / "mine"
    for kind in ("roof", "tree"):
        for number in range(6):
            write_picture(root / kind / "images" / f"{number}.jpg", seed=number)
            write_picture(root / kind / "masks" / f"{number}.png", mask=square_mask())
    return root


def small_hsnet(image_size=96, **arguments):
    """A small model with the same random weights every time."""
    import torch

    from cdfss import HSNet

    torch.manual_seed(0)
    return HSNet("resnet18", image_size=image_size, **arguments).eval()


def episode_of(k=2, size=96):
    """Random query (1, 3, S, S), supports (k, 3, S, S) and their masks (k, S, S), all different."""
    import torch

    torch.manual_seed(1)
    masks = torch.zeros(k, size, size)
    for number, mask in enumerate(masks):
        mask[size // 5 : size // 2 + number, size // 3 + number : -size // 4] = 1
    return torch.randn(1, 3, size, size), torch.randn(k, 3, size, size), masks


def balanced(model, query, supports, masks):
    """The model with a bias that makes half of the query foreground; random ones see hardly any."""
    import torch

    with torch.no_grad():
        background, foreground = model(query, supports[:1], masks[:1])[0]
        model.learner.decoder2[2].bias[1] -= (foreground - background).median()
    return model


@pytest.fixture
def data(settings, folder_data, tmp_path):
    """The index of a small data set and four episodes of it."""
    from cdfss.data import episodes, index

    path = tmp_path / "index.parquet"
    index.build(settings(folder_data), path, 1, lambda line: None)
    loaded = index.load(path)
    return loaded, episodes.sample(loaded, split="test", shot=2, seed=0, number=4)


@pytest.fixture
def checkpoint(tmp_path):
    """A source model of random weights in a file."""
    import torch

    from cdfss import HSNet
    from cdfss.methods.hsnet import checkpoints

    torch.manual_seed(0)
    model = HSNet("efficientnet_lite0")
    learner = {k: v for k, v in model.state_dict().items() if k.startswith("learner.")}
    checkpoints.save(tmp_path / "c.safetensors", learner, "efficientnet_lite0", {})
    return tmp_path / "c.safetensors"


@pytest.fixture
def pictured(tmp_path):
    """An index of six pictures, rows and stored masks of two variants on four episodes."""
    return write_pictured(tmp_path)


def write_pictured(tmp_path):
    """The files of `pictured`, in a folder."""
    from made_rows import row

    from cdfss.data import index
    from cdfss.evaluation import results

    root = tmp_path / "mine"
    for number in range(6):
        write_picture(root / "roof" / "images" / f"{number}.jpg", seed=number)
        write_picture(root / "roof" / "masks" / f"{number}.png", mask=square_mask())
    index.build(index_settings(root), tmp_path / "index.parquet", 1, lambda line: None)
    images = index.load(tmp_path / "index.parquet").rows["image"]
    generator = np.random.RandomState(0)
    for number, variant in enumerate(("baseline", "apm_s")):
        lines = [row(generator, "lungs", variant, 1, 0, episode) for episode in range(4)]
        masks = {}
        for episode, line in enumerate(lines):
            line |= {"class_id": 0, "query": images[episode], "supports": [images[5]]}
            line |= {"intersection_foreground": 10 * episode + number, "union_foreground": 60}
            masks[episode] = np.zeros((64, 64), np.uint8)
            masks[episode][10 : 20 + 8 * episode, 10:30] = 1
        facts = {"settings": {"variant": variant}}
        results.save(lines, tmp_path / "rows" / f"{variant}.parquet", facts)
        results.save_predictions(masks, tmp_path / "predictions" / f"{variant}.parquet", facts)
    found = [sorted((tmp_path / kind).iterdir(), reverse=True) for kind in ("rows", "predictions")]
    return tmp_path / "index.parquet", *found
