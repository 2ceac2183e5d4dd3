from cdfss import measurement
from cdfss.figures import features, style
from cdfss.jobs import job

with job(snakemake.log[0]):
    measured = measurement.load(snakemake.input.features)
    figure = features.heat_maps(measured, snakemake.input.index, snakemake.params.settings)
    style.save(figure, snakemake.output, snakemake.input)
