from cdfss import measurement
from cdfss.figures import features, style
from cdfss.jobs import job

with job(snakemake.log[0]):
    measured = measurement.load(snakemake.input.features)
    style.save(
        features.learnt_masks(measured, snakemake.params.settings), snakemake.output, snakemake.input
    )
