# The checked configuration, and what rules share: wildcards, folders, resources.
import sys
from pathlib import Path

# cdfss lies beside the Snakefile; it need not be installed to plan.
sys.path.insert(0, str(Path(workflow.basedir)))

from snakemake.exceptions import WorkflowError

from cdfss import configuration, devices, preflight
from cdfss.catalogue import EPISODE_GRID, FIGURES, TABLES, TRAINING_HISTORY
from cdfss.errors import CdfssError

try:
    run = configuration.parse(config)
except CdfssError as error:
    raise WorkflowError(str(error))

FOLDER = f"results/{run.name}"
SHOWN = run.table_settings()  # what tables, figures and page need to know of the run
ENVIRONMENT = "../../envs/cdfss.yaml"
TRAINED = bool(run.models) and run.source.checkpoint is None
# GPUs of one training or evaluation job. "cuda" is taken at its word here, since the machine that
# plans need not be the one that computes; a local run checks before its first job.
GPUS = int(run.device == "cuda" or (run.device == "auto" and len(devices.visible()) > 0))


wildcard_constraints:
    data="|".join(run.data),
    domain="|".join(run.domains),
    variant="|".join(run.variants),
    shot="|".join(map(str, run.shots)),
    seed="|".join(map(str, run.seeds)),
    shard=r"\d+",


def raw_marker(wildcards):
    """The file that says raw data is complete; none for a data set with its own root."""
    if run.data[wildcards.data].root is not None:
        return []
    return f"{run.folder}/{wildcards.data}/complete.json"


def settings_of(wildcards):
    """What the rows of a job depend on; a change runs exactly the jobs that it touches again."""
    settings = run.evaluation_settings(
        wildcards.domain, wildcards.variant, int(wildcards.shot), int(wildcards.seed)
    )
    return settings | {"shard": int(wildcards.shard), "shards": run.shards_of(wildcards.variant)}


def of_variants(pattern, variants, **wildcards):
    """Files of variants, each split into as many shards as that variant is."""
    files = []
    for variant in variants:
        shards = range(run.shards_of(variant))
        files += expand(pattern, variant=variant, shard=shards, **wildcards)
    return files


def inputs_of(entry):
    """Files that a table or figure is made from, by kind."""
    shown = [name for need in entry.needs for name in run.shown.get(need, [])]
    lists = {"domain": run.domains, "shot": run.shots, "seed": run.seeds}
    indexes = expand(f"{FOLDER}/index/{{domain}}.parquet", domain=run.domains)
    features = expand(FEATURES, domain=run.domains, variant=run.analysed)
    filtered = expand(FILTERED, domain=run.domains) if run.models else []
    return {
        "rows": of_variants(ROWS, shown, **lists),
        "features": features if "features" in entry.needs else [],
        "filtered": filtered if "filtered" in entry.needs else [],
        "index": indexes if "index" in entry.needs else [],
    }


def main_process():
    """Whether this is the user's own Snakemake, not the one of a single job."""
    return workflow.exec_mode == workflow.exec_mode.DEFAULT


if main_process():
    for line in preflight.warnings(run, GPUS, "gpu" in workflow.global_resources):
        logger.warning(line)


onstart:
    # Before the first job of a real run; a dry run plans all the same.
    problems = preflight.problems(run, here=workflow.local_exec)
    if problems:
        raise WorkflowError("\n".join(problems))
