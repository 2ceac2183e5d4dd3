from cdfss.configuration.jobs import compute_settings, with_files
from cdfss.evaluation import measurement
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    measurement.features(
        with_files(snakemake.params.variants, snakemake.input.checkpoint, snakemake.input.weights),
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.output,
        snakemake.params.kept,
        compute_settings(snakemake.config),
        snakemake.input.pictures,
    )
