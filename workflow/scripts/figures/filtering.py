from cdfss import measurement
from cdfss.figures import filtering, style
from cdfss.jobs import job

with job(snakemake.log[0]):
    filtered = measurement.load(snakemake.input.filtered)
    style.save(filtering.filtering(filtered, snakemake.params.settings), snakemake.output, snakemake.input)
