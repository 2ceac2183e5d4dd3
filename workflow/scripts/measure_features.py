from cdfss.configuration import schema as configuration
from cdfss.evaluation import measurement
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    measurement.features(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.input.checkpoint,
        snakemake.input.weights or None,
        snakemake.output[0],
        configuration.parse(snakemake.config).device,
    )
