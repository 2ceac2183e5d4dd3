from cdfss import gallery
from cdfss.jobs import job

with job(snakemake.log[0]):
    gallery.write(
        snakemake.input.index,
        snakemake.input.rows,
        snakemake.input.predictions,
        snakemake.params.variants,
        snakemake.output[0],
    )
