from cdfss.configuration.jobs import compute_settings
from cdfss.evaluation import evaluate
from cdfss.running.jobs import job

# On a processor a single thread computes, whatever there is: sums depend on how many share them.
with job(snakemake.log[0]):
    evaluate.run(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.input.get("checkpoint"),
        snakemake.input.get("weights"),
        snakemake.output.rows,
        snakemake.output.predictions,
        snakemake.output.cost,
        compute_settings(snakemake.config),
        snakemake.threads,
    )
