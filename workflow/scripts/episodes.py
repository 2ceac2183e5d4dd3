from cdfss.data import episodes
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    episodes.run(snakemake.params.settings, snakemake.input.index, snakemake.output[0])
