from cdfss.evaluation import evaluate as evaluation
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    evaluation.run_trivial(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.output.rows,
        snakemake.output.predictions,
        snakemake.output.cost,
    )
