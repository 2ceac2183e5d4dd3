"""Prints the lower bounds of pyproject.toml as constraints for pip: the oldest versions that must do."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"].values()
wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
for line in wanted:
    if found := re.fullmatch(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", line):
        print(f"{found[1]}=={found[2]}")
