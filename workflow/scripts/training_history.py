from cdfss.reports.figures import style, training
from cdfss.running.jobs import job

with job(snakemake.log[0]):
    style.save(training.of_files(snakemake.input), snakemake.output, snakemake.input)
