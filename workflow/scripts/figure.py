from cdfss.reports import figures
from cdfss.reports.figures import style
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    figure = figures.of_files(
        snakemake.wildcards.figure,
        snakemake.input.rows,
        snakemake.input.features,
        snakemake.input.filtered,
        snakemake.input.index,
        snakemake.input.cost,
        snakemake.params.settings,
    )
    given = snakemake.input
    made_from = [*given.rows, *given.features, *given.filtered, *given.index, *given.cost]
    style.save(figure, snakemake.output, made_from)
