"""Command line: `python -m cdfss COMMAND`, as `python -m cdfss --help` lists them."""

import argparse
import sys
from pathlib import Path

from cdfss import configuration
from cdfss.configuration import preflight, reference
from cdfss.configuration.jobs import Jobs
from cdfss.data import places
from cdfss.errors import CdfssError
from cdfss.methods import conformance
from cdfss.methods.contract import Given
from cdfss.reports import spent


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="cdfss", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("reference", help="write config/README.md and config/schema.json")
    commands.add_parser("datasets", help="list the registered data sets and their sources")
    check = commands.add_parser("check", help="check a configuration and its data")
    check.add_argument("file", type=Path)
    of_method = commands.add_parser("check-method", help="check that a method keeps the contract")
    of_method.add_argument("method", help="a name, folder/file.py:Class or module:Class")
    of_method.add_argument("--checkpoint", type=Path, help="source model, for a method that needs one")
    of_method.add_argument("--backbone", help=f"frozen network; default {conformance.BACKBONE}")
    of_method.add_argument("--weights", type=Path, help="file of its ImageNet weights")
    of_module = commands.add_parser("check-module", help="check that a module keeps the contract")
    of_module.add_argument("module", help="a name, folder/file.py:Class or module:Class")
    taken = commands.add_parser("spent", help="what a run took: time and memory by rule, disk by folder")
    taken.add_argument("folder", type=Path, help="results/<name>")
    given = parser.parse_args(arguments)
    try:
        if given.command == "reference":
            Path("config/README.md").write_text(reference.reference())
            Path("config/schema.json").write_text(reference.schema())
        elif given.command == "datasets":
            _list_data_sets()
        elif given.command == "check-method":
            _check_method(given)
        elif given.command == "check-module":
            _check_module(given.module)
        elif given.command == "spent":
            print(spent.report(given.folder))
        else:
            found = preflight.problems(Jobs(configuration.load(given.file)))
            print("\n".join(found) or f"{given.file}: nothing is wrong")
            return int(bool(found))
    except CdfssError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check_method(given: argparse.Namespace) -> None:
    with_files = None
    if given.checkpoint or given.backbone:
        import torch

        backbone = given.backbone or conformance.BACKBONE
        files = {"weights": given.weights, "checkpoint": given.checkpoint}
        with_files = Given(conformance.SIZE, device=torch.device("cpu"), backbone=backbone, **files)
    for line in conformance.check(given.method, with_files):
        print(f"  {line}")
    print(f"{given.method} keeps the contract")


def _check_module(name: str) -> None:
    from cdfss.methods.modules.conformance import check  # which imports torch

    for line in check(name):
        print(f"  {line}")
    print(f"{name} keeps the contract")


def _list_data_sets() -> None:
    for name, entry in places.registry().items():
        print(f"{name}: {entry['title']}\n  home: {entry['home']}\n  licence: {entry['licence']}")
        print(f"  cite: {entry['citation']}")
        for source, files in entry["sources"].items():
            kinds = sorted({kind for file in files for kind in ("http", "drive", "kaggle") if kind in file})
            sizes = [file["size_mb"] for file in files]
            size = f"{sum(sizes) / 1000:.1f} GB" if all(sizes) else "size not published"
            print(f"  download: {source} ({', '.join(kinds)}; {size})")


if __name__ == "__main__":
    sys.exit(main())
