from cdfss.reports import gallery
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    gallery.write(
        snakemake.input.index,
        snakemake.input.rows,
        snakemake.input.predictions,
        snakemake.params.variants,
        snakemake.output[0],
        snakemake.input.pictures,
    )
