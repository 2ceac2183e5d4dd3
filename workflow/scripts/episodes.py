from cdfss import episodes
from cdfss.datasets import index
from cdfss.jobs import job

with job(snakemake.log[0]):
    settings = snakemake.params.settings
    drawn = episodes.sample(index.load(snakemake.input.index), **settings)
    episodes.save(drawn, snakemake.output[0], settings)
