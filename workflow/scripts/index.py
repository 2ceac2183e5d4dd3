from cdfss import configuration
from cdfss.configuration.jobs import Jobs
from cdfss.data import index
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    settings = snakemake.params.settings
    place = Jobs(configuration.parse(snakemake.config)).place_of(settings["name"])
    index.build(settings | place, snakemake.output[0], snakemake.threads)
