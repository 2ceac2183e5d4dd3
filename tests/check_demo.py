"""Check a finished demo: the baseline means something, everything is there, the report holds it."""

import sys
import zipfile
from pathlib import Path

import pandas as pd
from PIL import Image

from cdfss.reports.catalogue import FIGURES, TABLES

results = Path(sys.argv[1])
problems = []

table = pd.read_csv(results / "table1.csv")
table = table[(table["domain"] != "average") & (table["shot"] == 1)]
miou = table.pivot(index="domain", columns="variant", values="miou")
better = miou["baseline"] > miou[["foreground", "copy"]].max(axis=1)
print(f"1-shot baseline beats both trivial predictors on {better.sum()} of {len(better)} domains")
if better.sum() < 3 or (miou["baseline"] >= 90).any():
    problems.append(f"the baseline is as good as nothing, or perfect:\n{miou}")

# The demo has a variant of every kind, so no table and no figure lacks anything.
for number in TABLES:
    if "Not in this " in (results / f"table{number}.md").read_text():
        problems.append(f"table {number} lacks something")
for name in FIGURES:
    with Image.open(results / "demo" / "figures" / f"{name}.png") as image:
        if image.height < 250:  # a figure that only says what is lacking is 200 pixels high
            problems.append(f"figure {name} lacks something")

with zipfile.ZipFile(results / "report.zip") as report:
    held = {Path(name).name for name in report.namelist()}
    text = b"".join(report.read(name) for name in report.namelist() if name.endswith((".html", ".js")))
# Captions, labels and the workflow's rules are in the report's own data.
for words in ("In brackets the paper", "Learnt masks", "episode_grid", "Tables"):
    if words.encode() not in text:
        problems.append(f"the report does not say {words!r}")
print(f"the report holds {len(held)} files")

print("\n".join(problems) or "nothing is wrong")
sys.exit(bool(problems))
