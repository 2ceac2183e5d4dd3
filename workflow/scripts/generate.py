from cdfss.datasets import synthetic
from cdfss.jobs import job

with job(snakemake.log[0]):
    synthetic.generate(snakemake.params.settings, snakemake.output[0], snakemake.threads)
