from cdfss.data import resizing
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    resizing.run(
        snakemake.params.settings,
        snakemake.input.index,
        snakemake.input.episodes or None,
        snakemake.params.folder,
        snakemake.output[0],
        snakemake.threads,
    )
