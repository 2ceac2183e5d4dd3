from cdfss import configuration
from cdfss.datasets import index
from cdfss.jobs import job

with job(snakemake.log[0]):
    settings = snakemake.params.settings
    place = configuration.parse(snakemake.config).place_of(settings["name"])
    index.build(settings | place, snakemake.output[0], snakemake.threads)
