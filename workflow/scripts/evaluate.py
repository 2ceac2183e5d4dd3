from cdfss import configuration, evaluation
from cdfss.jobs import job

with job(snakemake.log[0], snakemake.threads):
    evaluation.run(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.input.checkpoint,
        snakemake.input.weights or None,
        snakemake.output.rows,
        snakemake.output.predictions,
        configuration.parse(snakemake.config).compute_settings(),
    )
