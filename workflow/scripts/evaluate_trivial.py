from cdfss import evaluation
from cdfss.jobs import job

with job(snakemake.log[0]):
    evaluation.run_trivial(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.output.rows,
        snakemake.output.predictions,
        snakemake.output.cost,
    )
