# Reproducible cross-domain few-shot segmentation: configuration, includes, targets.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.12")
# cdfss is the one beside the Snakefile, for the plan and for every job, whatever else is installed. In a
# wheel the Snakefile lies inside of it.
HERE = Path(str(workflow.current_basedir))
if (HERE / "cdfss").is_dir():
    sys.path.insert(0, str(HERE))
    os.environ.update(
        PYTHONPATH=os.pathsep.join(sys.path[:1] + [os.getenv("PYTHONPATH", "")]).rstrip(os.pathsep)
    )

from cdfss import configuration
from cdfss.errors import CdfssError

# A configuration file with a name is a run of its own; one without adds to the default: that of the
# working folder, or else of the workflow. Of a workflow that has this one as a module, it is the
# configuration that it hands over.
MODULE = workflow.modifier.base_snakefile is not None
default = configuration.DEFAULT
default = default if default.is_file() else HERE / default
try:
    given = [configuration.check_file(file) for file in workflow.overwrite_configfiles]
    if MODULE:
        config = configuration.with_default(config, default)
except CdfssError as error:
    raise WorkflowError(str(error))
if not MODULE and not any("name" in values for values in given):
    config.clear()  # Snakemake adds the given keys once more, now after the default's

    configfile: str(default)


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
        expand(f"{TABLE}.{{kind}}", number=TABLES, kind=TABLE_KINDS),
        expand(f"{FIGURE}.{{kind}}", figure=FIGURES, kind=FIGURE_KINDS),
        rules.training_history.output if TRAINED else [],
        expand(f"{GRID}.{{kind}}", domain=run.domains, shot=run.shots, kind=FIGURE_KINDS),
        rules.page.output,
        # What these are made from is a result too: what is deleted of it is made again.
        expand(EPISODES, domain=run.domains, shot=run.shots, seed=run.seeds),
        lambda wildcards: of_every_list(ROWS, run.variants),
        lambda wildcards: of_every_list(COST, run.variants),
        lambda wildcards: of_every_list(PREDICTIONS, run.variants),
        lambda wildcards: measurements(),
        expand(FILTERED, domain=run.domains if jobs.source_variants else []),
        expand(GALLERY, domain=run.domains, shot=run.shots),
