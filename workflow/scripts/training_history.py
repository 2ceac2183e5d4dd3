import pandas as pd

from cdfss import figures
from cdfss.jobs import job

with job(snakemake.log[0]):
    figures.save(figures.training_history(pd.read_parquet(snakemake.input[0])), snakemake.output)
