from cdfss.configuration.jobs import compute_settings, with_files
from cdfss.evaluation import evaluate
from cdfss.running.jobs import job

# On a processor a single thread computes, whatever there is: sums depend on how many share them.
with job(snakemake.log[0]):
    evaluate.run(
        with_files(
            snakemake.params.variants,
            snakemake.input.get("checkpoint"),
            snakemake.input.get("weights", []),
        ),
        snakemake.input.index,
        snakemake.input.episodes,
        snakemake.output.rows,
        snakemake.output.predictions,
        snakemake.output.cost,
        snakemake.params.kept,
        compute_settings(snakemake.config),
        snakemake.threads,
        snakemake.input.pictures,
    )
