from cdfss.configuration import schema as configuration
from cdfss.evaluation import evaluate as evaluation
from cdfss.running.jobs import job

# On a processor a single thread computes, whatever there is: sums depend on how many share them.
with job(snakemake.log[0]):
    evaluation.run(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.input.checkpoint,
        snakemake.input.weights or None,
        snakemake.output.rows,
        snakemake.output.predictions,
        snakemake.output.cost,
        configuration.parse(snakemake.config).compute_settings(),
        snakemake.threads,
    )
