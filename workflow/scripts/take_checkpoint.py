from cdfss.methods import hosts
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    hosts.take(
        snakemake.params.host,
        snakemake.input.checkpoint,
        snakemake.params.backbone,
        snakemake.output.checkpoint,
        snakemake.output.identity,
    )
