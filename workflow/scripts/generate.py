from cdfss.data import synthetic
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    synthetic.generate(snakemake.params.settings, snakemake.output[0], snakemake.threads)
