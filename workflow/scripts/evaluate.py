from cdfss import evaluation
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
        snakemake.config.get("device", "auto"),
    )
