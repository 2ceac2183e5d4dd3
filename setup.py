"""Puts the workflow's files into wheels, as cdfss/project; in the project's own folder they stay on top."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PARTS = ("Snakefile", "workflow", "config", "profiles", "envs")


class WithWorkflow(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib, "cdfss", "project")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for part in PARTS:
            if Path(part).is_dir():
                shutil.copytree(part, place / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(part, place)


setup(cmdclass={"build_py": WithWorkflow})
