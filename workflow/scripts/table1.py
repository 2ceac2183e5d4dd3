from cdfss import results, tables
from cdfss.jobs import job

with job(snakemake.log[0]):
    rows = results.load(snakemake.input)
    tables.write_main_table(rows, snakemake.params.settings, dict(snakemake.output.items()))
