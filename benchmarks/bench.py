"""Time adaptation, prediction and source training in units of B, beside the plain path.

B is one ResNet-50 forward pass at the image size, timed next to every measurement: on a shared or
throttled machine both slow down together, so that the ratios hold elsewhere too.
"""

import argparse
import copy
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
import lists
import plain
import reading

from cdfss import HSNet, adapt
from cdfss.methods.hsnet.adaptation import Adaptation
from cdfss.methods.hsnet.model import resize_logits
from cdfss.running.files import replacing
from cdfss.running.precision import precision

PRODUCT = "matrix product"
WITH_BACKBONE, KEPT = "training step, with backbone", "training step, kept features"

VARIANTS = {
    "apm_s": {"modules": ["apm_s"]},
    "apm_m": {"modules": ["apm_m"]},
    "apm_s_acpa": {"modules": ["apm_s", "acpa"]},
    "apm_m_acpa": {"modules": ["apm_m", "acpa"]},
}
# How many times faster than the plain path we want to be, at 400 px.
GOALS = {
    "step apm_s": 9,
    "step apm_m_acpa": 9,
    "1-shot prediction": 2.3,
    "5-shot prediction": 3.5,
    WITH_BACKBONE: 4,
    KEPT: 6,
}


def disks(number: int, size: int, seed: int) -> torch.Tensor:
    """Masks (number, S, S) of disks that cover 7 to 28 % of the picture."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    masks = []
    for _ in range(number):
        cx, cy, r = torch.rand(3, generator=generator).tolist()
        centre, radius = ((0.3 + 0.4 * c) * size for c in (cx, cy)), (0.15 + 0.15 * r) * size
        cx, cy = centre
        masks.append(((x - cx) ** 2 + (y - cy) ** 2 <= radius**2).float())
    return torch.stack(masks)


def timed(call, device: torch.device) -> float:
    """Seconds of one call, work on a GPU included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def multiply_adds(call) -> float:
    """Of the convolutions and matrix products of one call, backward passes included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


class Bench:
    """Measurements by name: seconds and B of every repeat."""

    def __init__(self, size: int, repeats: int, device: torch.device):
        self.size, self.repeats, self.device, self.results = size, repeats, device, {}
        self.shortest_unit = math.inf  # seconds of B
        import torchvision

        network = torchvision.models.resnet50(weights=None).eval().to(device)
        picture = torch.randn(1, 3, size, size, device=device)

        @torch.no_grad()
        def unit():
            network(picture)

        self.unit = unit

    def measure(self, name: str, call, per: int = 1, repeats: int | None = None) -> None:
        """Time a call that does `per` units of work, B before and after each repeat."""
        call()  # warm
        seconds, units = [], []
        before = timed(self.unit, self.device)
        for _ in range(repeats or self.repeats):
            seconds.append(timed(call, self.device) / per)
            after = timed(self.unit, self.device)
            units.append(seconds[-1] / ((before + after) / 2))
            self.shortest_unit = min(self.shortest_unit, before, after)
            before = after
        work = multiply_adds(call) / per
        self.results[name] = {"seconds": seconds, "B": units, "multiply_adds": work}
        low, middle, high = min(units), statistics.median(units), max(units)
        times = f"{middle:7.2f} B ({low:.2f} to {high:.2f})  {statistics.median(seconds):8.3f} s"
        print(f"{name:36} {times}  {work / 1e9:6.1f} G multiply-adds", flush=True)

    def summary(self) -> None:
        """Shortest times of the run: other programs only ever add to a time."""
        product = self.results[PRODUCT]
        rate = product["multiply_adds"] / min(product["seconds"])
        print(f"shortest: B {self.shortest_unit:.3f} s, matrix product {rate / 1e9:.0f} G multiply-adds/s")
        for name, result in self.results.items():
            result["shortest_B"] = min(result["seconds"]) / self.shortest_unit
            result["share_of_product_rate"] = result["multiply_adds"] / min(result["seconds"]) / rate
            share = f"{100 * result['share_of_product_rate']:4.0f} % of the product's rate"
            times = ""
            if plainly := self.results.get(f"plain {name}"):
                ratios = [p / statistics.median(result["B"]) for p in plainly["B"]]
                result["times_faster"] = statistics.median(ratios)
                goal = f" (goal {GOALS[name]})" if name in GOALS and self.size == 400 else ""
                times = f", {result['times_faster']:.1f} times faster than the plain path{goal}"
            print(f"{name:36} {result['shortest_B']:7.2f} B {share}{times}")


def plain_step(model, images, masks):
    tuned, _ = plain.adapt(model, images, masks, 0, 0.0)
    parameters = list(tuned.chain.parameters())
    optimiser = torch.optim.Adam(parameters, 1e-2)

    def step():
        loss = F.cross_entropy(plain.logits(tuned, images, images, masks), masks.long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def training_steps(size: int, device: torch.device, batch: int) -> dict:
    """Source training steps of `batch` episodes by name, ours and plain ones, on equal learners."""
    ours = HSNet("resnet50", image_size=size).to(device).train()
    theirs = copy.deepcopy(ours)
    query, support = (torch.randn(batch, 3, size, size, device=device) for _ in range(2))
    mask = disks(batch, size, 1).to(device)

    def step_of(model, features, logits):
        optimiser = torch.optim.Adam(model.learner.parameters(), 1e-3)

        def step():
            optimiser.zero_grad()
            F.cross_entropy(logits(*features()), mask.long()).backward()
            optimiser.step()

        return step

    def fast(*features):
        return resize_logits(ours.segment(*features, mask), (size, size))

    def literal(*features):
        return plain.compared(theirs, *features, mask)

    def all_again():
        return ours.features(query), ours.features(support)

    def plainly():
        return plain.features(theirs, query), plain.features(theirs, support)

    kept, kept_plainly = all_again(), plainly()
    return {
        WITH_BACKBONE: step_of(ours, all_again, fast),
        f"plain {WITH_BACKBONE}": step_of(theirs, plainly, literal),
        KEPT: step_of(ours, lambda: kept, fast),
        f"plain {KEPT}": step_of(theirs, lambda: kept_plainly, literal),
    }


def run(bench: Bench, size: int, slow: bool) -> None:
    """All measurements."""
    device = bench.device
    torch.manual_seed(0)
    query, images = torch.randn(1, 3, size, size), torch.randn(5, 3, size, size)
    query, images, masks = query.to(device), images.to(device), disks(5, size, 0).to(device)
    for name, arguments in VARIANTS.items():
        model = HSNet("resnet50", image_size=size, **arguments).to(device).eval()
        model.learner.requires_grad_(False)
        bench.measure(f"step {name}", Adaptation(model, images[:1], masks[:1], 1e-2).step)
        # A GPU is only busy with many.
        for episodes in (16, 64) if device.type == "cuda" else (4,):
            if name in ("apm_s", "apm_m_acpa"):
                numbers = torch.arange(episodes, device=device) % 5
                batch = Adaptation(model, images[numbers, None], masks[numbers, None], 1e-2)
                title = f"step {name}, {episodes} episodes at once"
                bench.measure(title, batch.step, per=episodes, repeats=3)
                del batch
        if name in ("apm_s", "apm_m_acpa") and slow:
            bench.measure(f"plain step {name}", plain_step(model, images[:1], masks[:1]), repeats=3)
    bench.measure(f"step {name}, 5 shots", Adaptation(model, images, masks, 1e-2).step, repeats=3)
    for shot in (1, 5):
        supports, labels = images[:shot], masks[:shot]
        bench.measure(
            f"{shot}-shot prediction",
            lambda s=supports, m=labels: adapt(model, s, m, 0, 0.0).predict(query),
        )
        if slow:
            call = lambda s=supports, m=labels: plain.predict(model, query, s, m)  # noqa: E731
            bench.measure(f"plain {shot}-shot prediction", call, repeats=3)
    for name, step in training_steps(size, device, 4).items():
        if slow or not name.startswith("plain "):
            bench.measure(name, step, per=4, repeats=3)


def peak_memory(size: int) -> float:
    """Resident MB that adapting to one support and predicting adds to a process with the model."""
    script = f"""
import torch
from pathlib import Path
from cdfss import HSNet, adapt
def status(key):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key)) / 1024
model = HSNet("resnet50", modules=["apm_m", "acpa"], image_size={size}).eval()
model.learner.requires_grad_(False)
query, image = torch.randn(2, 1, 3, {size}, {size})
mask = torch.zeros(1, {size}, {size}); mask[:, {size} // 4 : -{size} // 4, {size} // 4 : -{size} // 4] = 1
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
adapt(model, image, mask, 3, 0.01).predict(query)
print(status("VmHWM") - before, status("VmHWM"))
"""
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    added, total = map(float, output.stdout.split())
    print(f"{'memory of one adaptation':34} {added:7.0f} MB, whole process {total:.0f} MB")
    return added


def around() -> dict[str, float]:
    """Seconds of what surrounds the computation: reading episodes, starting jobs, planning a run."""
    found = {f"reading a {name}": seconds for name, seconds in reading.measure().items()}
    calls = {}
    for name, modules in (
        ("start of a table job", "cdfss.reports.tables, cdfss.reports.figures"),
        (
            "start of an evaluation job",
            "cdfss.evaluation.evaluate, cdfss.methods.hsnet.adaptation, cdfss.methods.hsnet.checkpoints",
        ),
    ):
        command = [sys.executable, "-c", f"import cdfss.running.jobs, {modules}"]
        calls[name] = lambda c=command: subprocess.run(c, check=True)
    plan = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "--quiet",
        "all",
        "--configfile",
        "config/config.yaml",
    ]
    calls["plan of the paper's run"] = lambda: subprocess.run(plan, check=True, capture_output=True)
    for name, call in calls.items():
        call()
        found[name] = statistics.median(timed(call, torch.device("cpu")) for _ in range(3))
    of_lists = lists.lists()
    found |= {f"all variants of a list, {name}": of_lists[name] for name in ("together", "apart")}
    for name, seconds in found.items():
        print(f"{name:42} {seconds:9.4f} s", flush=True)
    print(f"a list's variants in one job: {of_lists['ratio']:.1f} times faster than in a job each (goal 2)")
    return found


def plot(results: dict, path: Path) -> None:
    """Medians in B, fast beside plain, with the spread of the repeats; a dot for the shortest time."""
    from matplotlib.figure import Figure

    names = [name for name in results if not name.startswith("plain ")]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    for prefix, colour, shift in (("", "#0072B2", -0.2), ("plain ", "#E69F00", 0.2)):
        shown = [
            (i, results[prefix + name]["B"]) for i, name in enumerate(names) if prefix + name in results
        ]
        middle = [statistics.median(units) for _, units in shown]
        spread = [[m - min(u), max(u) - m] for m, (_, u) in zip(middle, shown)]
        places = [i + shift for i, _ in shown]
        label = "plain path" if prefix else "cdfss"
        axes.barh(
            places,
            middle,
            0.38,
            xerr=list(zip(*spread)),
            color=colour,
            label=label,
            error_kw={"capsize": 2},
        )
        axes.plot([results[prefix + names[i]]["shortest_B"] for i, _ in shown], places, "k.", zorder=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(
        "time in ResNet-50 forward passes (B)\nbar: median, whiskers: range of the repeats\n"
        "dot: shortest time in shortest B"
    )
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=400, help="image size in pixels")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["float32", "tf32", "bfloat16"], default="float32")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain path out")
    parser.add_argument("--output", type=Path, default=Path("results/bench"))
    given = parser.parse_args()
    device = torch.device(given.device)
    bench = Bench(given.size, given.repeats, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    facts = {
        "size": given.size,
        "precision": given.precision,
        "torch": torch.__version__,
        "device": name or device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(facts))
    # torch's own default computes convolutions, and B with them, in TF32 on a GPU, products in float32.
    with precision(given.precision, device):
        bench.measure("B", bench.unit)
        side = 8192 if device.type == "cuda" else 2048  # a GPU is not busy with less
        matrix = torch.randn(side, side, device=device)
        bench.measure(PRODUCT, lambda: matrix @ matrix)
        run(bench, given.size, not given.no_plain)
    bench.summary()
    facts["around"] = around()
    if device.type == "cpu":
        facts["adaptation_peak_mb"] = peak_memory(given.size)
    else:
        facts["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    given.output.mkdir(parents=True, exist_ok=True)
    with replacing(given.output / "bench.json") as temporary:
        temporary.write_text(
            json.dumps(facts | {"shortest_B_s": bench.shortest_unit, "results": bench.results}, indent=1)
            + "\n"
        )
    measured = {k: v for k, v in bench.results.items() if k not in ("B", PRODUCT)}
    plot(measured, given.output / "bench.svg")
    plot(measured, given.output / "bench.png")
    print(f"written: {given.output}/bench.json, bench.svg, bench.png")


if __name__ == "__main__":
    main()
