from cdfss.reports import page
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    page.write(
        snakemake.input.tables,
        snakemake.input.figures,
        snakemake.input.galleries,
        snakemake.params.settings,
        snakemake.output[0],
        snakemake.input.indexes,
    )
