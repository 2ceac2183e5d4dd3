# Reproducible cross-domain few-shot segmentation: configuration, includes, targets.
from snakemake.common.configfile import load_configfile
from snakemake.utils import min_version

min_version("9.0")

# A configuration file with a name is a run of its own; one without adds to the default.
if not any("name" in load_configfile(file) for file in workflow.overwrite_configfiles):
    config.clear()  # Snakemake adds the given keys once more, now after the default's

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/source.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"


rule all:
    default_target: True
    input:
        expand(rules.table.output, number=TABLES),
        expand(rules.figure.output, figure=FIGURES),
        rules.training_history.output if TRAINED else [],
        expand(rules.episode_grid.output, domain=run.domains, shot=run.shots),
        rules.page.output,
        # What these are made from is a result too: what is deleted of it is made again.
        expand(rules.episodes.output, domain=run.domains, shot=run.shots, seed=run.seeds),
        of_variants(ROWS, run.variants, domain=run.domains, shot=run.shots, seed=run.seeds),
        of_variants(PREDICTIONS, run.variants, domain=run.domains, shot=run.shots, seed=run.seeds),
        expand(FEATURES, domain=run.domains, variant=run.analysed),
        expand(FILTERED, domain=run.domains if run.models else []),
        expand(rules.gallery.output, domain=run.domains, shot=run.shots),
