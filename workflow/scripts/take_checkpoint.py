from cdfss import checkpoints
from cdfss.jobs import job

with job(snakemake.log[0]):
    checkpoints.take(
        snakemake.input.checkpoint,
        snakemake.params.backbone,
        snakemake.output.checkpoint,
        snakemake.output.identity,
    )
