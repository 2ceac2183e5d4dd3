from cdfss.methods.hsnet import checkpoints
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    checkpoints.take(
        snakemake.input.checkpoint,
        snakemake.params.backbone,
        snakemake.output.checkpoint,
        snakemake.output.identity,
    )
