"""The rooms of the package: imports go one way, and a plan needs neither torch nor timm."""

import ast
import subprocess
import sys
from pathlib import Path

import cdfss

PACKAGE = Path(cdfss.__file__).parent
# From the ground up: a room may import from itself and from those before it.
ROOMS = (
    "running",
    "backbones",
    "data",
    "methods",
    "evaluation",
    "reports",
    "segmentation",
    "configuration",
    "commands",
)


def imports(file):
    """Names of this package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cdfss":
            below = node.module.removeprefix("cdfss").lstrip(".")
            yield from [below] if below else [alias.name for alias in node.names]


def test_every_module_has_a_room_and_imports_none_above_it():
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == set(ROOMS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "errors"}
    upwards = []
    for file in PACKAGE.glob("*/**/*.py"):
        room = file.relative_to(PACKAGE).parts[0]
        below = ROOMS[: ROOMS.index(room) + 1]
        for name in imports(file):
            if name != "errors" and name.split(".")[0] not in below:
                upwards.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert upwards == []


def test_evaluation_knows_no_method_but_by_the_contract():
    """What is measured in HSNet's features is another matter."""
    known = {"methods", "methods.contract", "methods.calling", "methods.known", "methods.source"}
    for name in ("evaluate", "results"):
        of_methods = {n for n in imports(PACKAGE / "evaluation" / f"{name}.py") if n.startswith("methods")}
        assert of_methods <= known


def test_a_plan_imports_neither_torch_nor_timm():
    code = (
        "import sys; from cdfss import configuration; from cdfss.configuration import preflight\n"
        "from cdfss.configuration.jobs import Jobs; from cdfss.configuration.shown import Shown\n"
        "jobs = Jobs(configuration.load('config/config.yaml')); Shown(jobs).table_settings()\n"
        "sys.exit(bool({'torch', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0
