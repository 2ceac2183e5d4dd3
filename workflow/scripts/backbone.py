from cdfss.datasets import download
from cdfss.jobs import job

with job(snakemake.log[0]):
    download.backbone(snakemake.params.backbone, snakemake.output[0])
