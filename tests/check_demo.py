"""Check the demo's table: the baseline means something, nothing is perfect."""

import sys

import pandas as pd

table = pd.read_csv(sys.argv[1])
table = table[(table["domain"] != "average") & (table["shot"] == 1)]
miou = table.pivot(index="domain", columns="variant", values="miou")
better = miou["baseline"] > miou[["foreground", "copy"]].max(axis=1)
print(f"1-shot baseline beats both trivial predictors on {better.sum()} of {len(better)} domains")
sys.exit(not (better.sum() >= 3 and (miou["baseline"] < 90).all()))
