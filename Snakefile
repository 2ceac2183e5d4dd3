# Reproducible cross-domain few-shot segmentation: configuration, includes, targets.
from snakemake.utils import min_version

min_version("9.0")

# A configuration file with a name is a run of its own; one without adds to the default.
if "name" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/source.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        rules.table1.output,
        [] if run.source.checkpoint else rules.training_history.output,
        expand(rules.episode_grid.output, domain=run.domains, shot=run.shots),
