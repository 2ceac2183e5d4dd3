import pandas as pd

from cdfss.reports.figures import style, training
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    style.save(
        training.training_history(pd.read_parquet(snakemake.input[0])), snakemake.output, snakemake.input
    )
