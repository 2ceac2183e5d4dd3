from cdfss.reports.figures import episodes, style
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    figure = episodes.episode_grid(
        snakemake.input.index,
        snakemake.input.rows,
        snakemake.input.predictions,
        snakemake.params.variants,
        snakemake.input.pictures,
    )
    made_from = [snakemake.input.index, *snakemake.input.rows, *snakemake.input.predictions]
    style.save(figure, snakemake.output, made_from)
