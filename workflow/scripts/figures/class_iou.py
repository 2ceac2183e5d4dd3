from cdfss import results
from cdfss.figures import rows, style
from cdfss.jobs import job

with job(snakemake.log[0]):
    figure = rows.class_iou(results.load_listed(snakemake.input.rows), snakemake.params.settings)
    style.save(figure, snakemake.output, snakemake.input)
