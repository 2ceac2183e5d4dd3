from cdfss.configuration.jobs import compute_settings
from cdfss.methods import training
from cdfss.running.jobs import job

settings = snakemake.params.settings
with job(snakemake.log[0], settings["threads"]):
    training.run(
        settings,
        snakemake.input.source,
        snakemake.input.validation,
        snakemake.input.weights or None,
        snakemake.output.checkpoint,
        snakemake.output.identity,
        snakemake.output.history,
        snakemake.params.state,
        compute_settings(snakemake.config),
        snakemake.threads,
        snakemake.input.source_pictures,
        snakemake.input.validation_pictures,
    )
