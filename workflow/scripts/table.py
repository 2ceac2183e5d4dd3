from cdfss.reports import tables
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    table = tables.of_files(
        int(snakemake.wildcards.number),
        snakemake.input.rows,
        snakemake.input.features,
        snakemake.input.filtered,
        snakemake.input.cost,
        snakemake.params.settings,
    )
    tables.write(table, dict(snakemake.output.items()))
