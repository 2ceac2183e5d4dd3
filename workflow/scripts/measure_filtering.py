from cdfss.configuration.jobs import compute_settings
from cdfss.evaluation import measurement
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    measurement.filtering(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.input.checkpoint,
        snakemake.input.weights or None,
        snakemake.output[0],
        compute_settings(snakemake.config),
        snakemake.input.pictures,
    )
