from cdfss.data import download
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    download.backbone(snakemake.params.backbone, snakemake.output[0])
