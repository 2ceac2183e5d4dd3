from cdfss.data import download
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    download.data_set(snakemake.params.settings, snakemake.output[0])
