# The checked configuration, and what rules share: wildcards, folders, resources.
import sys
from pathlib import Path

# cdfss lies beside the Snakefile; it need not be installed to plan.
sys.path.insert(0, str(Path(workflow.basedir)))

from snakemake.exceptions import WorkflowError

from cdfss import configuration, devices, preflight
from cdfss.errors import CdfssError

try:
    run = configuration.parse(config)
    device = devices.wanted(run.device)
except CdfssError as error:
    raise WorkflowError(str(error))

FOLDER = f"results/{run.name}"
ENVIRONMENT = "../../envs/cdfss.yaml"
GPUS = int(device == "cuda")  # of one training or evaluation job; 0 does not count against a limit


wildcard_constraints:
    data="|".join(run.data),
    domain="|".join(run.domains),
    variant="|".join(run.variants),
    shot="|".join(map(str, run.shots)),
    seed="|".join(map(str, run.seeds)),
    shard=r"\d+",


def main_process():
    """Whether this is the user's own Snakemake, not the one of a single job."""
    return workflow.exec_mode == workflow.exec_mode.DEFAULT


if main_process():
    for line in preflight.warnings(run, device, "gpu" in workflow.global_resources):
        logger.warning(line)


onstart:
    # Before the first job of a real run; a dry run plans all the same.
    problems = preflight.problems(run)
    if problems:
        raise WorkflowError("\n".join(problems))
