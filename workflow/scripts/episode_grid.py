from cdfss import figures
from cdfss.jobs import job

with job(snakemake.log[0]):
    figure = figures.episode_grid_of_files(
        snakemake.input.index,
        snakemake.input.rows,
        snakemake.input.predictions,
        snakemake.params.variants,
    )
    figures.save(figure, snakemake.output)
