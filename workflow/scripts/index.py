from cdfss.datasets import index
from cdfss.jobs import job

with job(snakemake.log[0]):
    index.build(snakemake.params.settings, snakemake.output[0], snakemake.threads)
