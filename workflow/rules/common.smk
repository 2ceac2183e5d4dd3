# The checked configuration, and what rules share: wildcards, folders, resources.
import functools
import itertools
import json

from cdfss.configuration import preflight
from cdfss.configuration.jobs import Jobs
from cdfss.configuration.schema import SOURCE_SPLIT
from cdfss.configuration.shown import Shown
from cdfss.data import places, tracking
from cdfss.reports.catalogue import EPISODE_GRID, FIGURES, TABLES, TRAINING_HISTORY
from cdfss.running import devices, files, provenance, runs, stopping

try:
    run = configuration.parse(config)
except CdfssError as error:
    raise WorkflowError(str(error))

FOLDER = f"results/{run.name}"
jobs = Jobs(run)
shown = Shown(jobs)
SHOWN = shown.table_settings()  # what tables, figures and page need to know of the run
ENVIRONMENT = "../../envs/cdfss.yaml"
# GPUs of one training or evaluation job. "cuda" is taken at its word here, since the machine that
# plans need not be the one that computes; a local run checks before its first job.
GPUS = int(run.device == "cuda" or (run.device == "auto" and len(devices.visible()) > 0))


def name_of(host, source):
    """Name of a source model: the seed of its training, or "given"; of others than HSNet after the host."""
    name = "given" if source is None else str(source)
    return name if host == "hsnet" else f"{host}-{name}"


MODELS = {name_of(*of_model): of_model for of_model in jobs.models}
TRAINED = [name for name, (_, source) in MODELS.items() if source is not None]
# That of measurements.
FIRST_HSNET = next((name for name, (host, _) in MODELS.items() if host == "hsnet"), None)


def of_source(source):
    """How a folder's name ends, to say of which source training the files are; empty if of none."""
    return "" if source is None else f"-source{source}"


wildcard_constraints:
    data="|".join(run.data),
    domain="|".join(run.domains),
    variant="|".join(run.variants),
    shot="|".join(map(str, run.shots)),
    seed="|".join(map(str, run.seeds)),
    source="|".join(MODELS) or "NONE",
    of_source="|".join(map(of_source, [*jobs.sources, None])),
    shard=r"\d+",
    split="trn|val|test",


def index_file(data, split):
    """The index of one split of a data set."""
    return f"{FOLDER}/index/{data}/{split}.parquet"


def index_of(domain):
    """The index that a domain's episodes are drawn from."""
    return index_file(domain, run.domains[domain].split)


def main_process():
    """Whether this is the user's own Snakemake, not the one of a single job."""
    return workflow.exec_mode == workflow.exec_mode.DEFAULT


# Where a second try can help by itself: servers fail for a moment. Profiles of clusters retry other
# rules too. None within a job, whose own Snakemake would try as often again, each time.
RETRIES = 2 if main_process() else 0


def by_attempt(first):
    """A resource that doubles with each attempt of a job.

    What rules ask for at first is what was measured on a processor, at the paper's sizes, and room on
    top (docs/performance.md); what a GPU's libraries take of the machine's memory was not measured.
    """
    return lambda wildcards, attempt: first * 2 ** (attempt - 1)


# What everything before a job depends on is a parameter of the job too. Snakemake takes a job that
# failed or was killed for one that has run with its new settings; what it should have made is then
# missing, but nobody asks for it as long as what comes after it is there, from before.


@functools.cache
def pictures_of(data, split):
    """What an index depends on; another once pictures are edited, added or removed.

    The user's own Snakemake looks at the files and hands down what it found to the jobs, of which there
    may be thousands on a slow shared file system.
    """
    settings, file = jobs.index_settings(data, split), index_file(data, split)
    handed = json.loads(os.getenv("CDFSS_PICTURES", "{}"))
    if main_process() or file not in handed:
        handed[file] = tracking.key(settings | jobs.place_of(data), file)
        os.environ.update(CDFSS_PICTURES=json.dumps(handed))
    return [settings, handed[file]]


def list_of(domain, shot, seed):
    """What an episode list depends on."""
    settings = jobs.episode_settings(domain, int(shot), int(seed))
    return provenance.digest([settings, pictures_of(domain, run.domains[domain].split)])


def host_of(wildcards):
    """Host of a source model."""
    return MODELS[wildcards.source][0]


def source_settings(name):
    """Settings of a source training."""
    host, seed = MODELS[name]
    return jobs.source_settings(seed, host)


@functools.cache
def model(name):
    """What a source model depends on."""
    host, seed = MODELS[name]
    if seed is None:
        given = run.source.of(host).checkpoint
        return provenance.digest([run.backbone_of_host(host), files.hash_if_there(given)])
    data = [(run.source.data, SOURCE_SPLIT)]
    data.append((run.source.validation.data, run.source.validation.split))
    return provenance.digest([source_settings(name), [pictures_of(*pair) for pair in data]])


def model_of(variant, source):
    """Name of the source model that a variant needs, of a seed; None if it needs none."""
    host = run.host_of(variant)
    return name_of(host, source) if host else None


def source_of(wildcards):
    """Seed of the source training that a job's rows are of; None if of none."""
    seed = wildcards.of_source.removeprefix("-source")
    return int(seed) if seed else None


def before_rows(wildcards):
    """What the rows of a job depend on besides their settings."""
    list_ = list_of(wildcards.domain, wildcards.shot, wildcards.seed)
    needed = model_of(wildcards.variant, source_of(wildcards))
    return [list_, model(needed) if needed else ""]


def before_measurement(wildcards):
    """The same for a measurement."""
    return [list_of(wildcards.domain, run.shots[0], run.seeds[0]), model(FIRST_HSNET)]


def before_episodes(wildcards):
    """What pictures of episodes of one domain and number of shots depend on."""
    domain, shot, seed = wildcards.domain, int(wildcards.shot), run.seeds[0]
    settings = [
        jobs.evaluation_settings(domain, v, shot, seed, jobs.sources_of(v)[0]) for v in shown.pictured
    ]
    models = {model_of(v, jobs.sources_of(v)[0]) for v in shown.pictured} - {None}
    return provenance.digest([list_of(domain, shot, seed), *map(model, sorted(models)), settings])


@functools.cache
def before(*needs):
    """What a table or figure of these needs (`catalogue.Entry.needs`) depends on."""
    found = []
    names = [name for need in needs for name in shown.by_subject.get(need, [])]
    evaluated = [(name, source) for name in names for source in jobs.sources_of(name)]
    for domain, shot, seed in itertools.product(run.domains, run.shots, run.seeds):
        found.append(list_of(domain, shot, seed))
        found += [jobs.evaluation_settings(domain, name, shot, seed, source) for name, source in evaluated]
    if "features" in needs:
        found += [jobs.analysis_settings(d, v) for d in run.domains for v in shown.analysed]
    if "filtered" in needs and FIRST_HSNET:
        found += [jobs.filtering_settings(d) for d in run.domains]
    models = {model_of(*of_rows) for of_rows in evaluated} - {None}
    if {"features", "filtered"} & set(needs) and FIRST_HSNET:
        models |= {FIRST_HSNET}
    return provenance.digest([*map(model, sorted(models)), found])


def raw_marker(wildcards):
    """The file that says raw data is complete; none for a data set with its own root."""
    if run.data[wildcards.data].root is not None:
        return []
    return str(places.marker(jobs.raw_settings(wildcards.data)))


def settings_of(wildcards):
    """What the rows of a job depend on; a change runs exactly the jobs that it touches again."""
    numbers = int(wildcards.shot), int(wildcards.seed), source_of(wildcards)
    settings = jobs.evaluation_settings(wildcards.domain, wildcards.variant, *numbers)
    return settings | {"shard": int(wildcards.shard), "shards": jobs.shards_of(wildcards.variant)}


def of_variants(pattern, variants, sources=None, **wildcards):
    """Files of variants, each split into as many shards as that variant is, of so many source models."""
    files = []
    for variant in variants:
        shards = range(jobs.shards_of(variant))
        ends = list(map(of_source, jobs.sources_of(variant)[:sources]))
        files += expand(pattern, variant=variant, shard=shards, of_source=ends, **wildcards)
    return files


def inputs_of(entry):
    """Files that a table or figure is made from, by kind."""
    names = [name for need in entry.needs for name in shown.by_subject.get(need, [])]
    lists = {"domain": run.domains, "shot": run.shots, "seed": run.seeds}
    features = expand(FEATURES, domain=run.domains, variant=shown.analysed)
    filtered = expand(FILTERED, domain=run.domains) if FIRST_HSNET else []
    return {
        "rows": of_variants(ROWS, names, **lists),
        "features": features if "features" in entry.needs else [],
        "filtered": filtered if "filtered" in entry.needs else [],
        "index": list(map(index_of, run.domains)) if "index" in entry.needs else [],
        "cost": of_variants(COST, shown.by_subject["cost"], **lists) if "cost" in entry.needs else [],
    }


def weights_of(backbone):
    """File of a frozen network's ImageNet weights; None where they are an installed package."""
    return preflight.weights_file(run, backbone) if backbone else None


def given_to(wildcards):
    """Files that the method of a variant needs besides pictures and lists."""
    needed = {}
    if name := model_of(wildcards.variant, source_of(wildcards)):
        # The small file tells whether the model changed; a touched large one loses no GPU work.
        needed["identity"] = IDENTITY.format(source=name)
        needed["checkpoint"] = ancient(CHECKPOINT.format(source=name))
    weights = weights_of(run.backbone_of(wildcards.variant))
    return needed | ({"weights": ancient(weights)} if weights else {})


def gpu_limit():
    """GPUs that jobs may use at once; None where nothing limits them, as on a cluster."""
    limit = workflow.global_resources.get("gpu")
    return getattr(limit, "value", limit)  # Snakemake wraps the number since 9.20


if workflow.exec_mode != workflow.exec_mode.SUBPROCESS:
    os.environ.update({stopping.RUN: stopping.this_run()})
if main_process() and "--unlock" not in sys.argv:
    # Without a limit every core would start a GPU job; with `--jobs N` they run elsewhere.
    if gpu_limit() is None and workflow.resource_settings.nodes is None:
        workflow.register_resource("gpu", max(1, len(devices.visible())))
    for line in [
        *runs.enter(elsewhere=workflow.resource_settings.nodes is not None),
        *preflight.warnings(jobs, GPUS, gpu_limit()),
        *preflight.older_code(FOLDER),
        *preflight.stale_indexes(jobs, index_file, pictures_of),
    ]:
        logger.warning(line)


onstart:
    stopping.end_jobs_on_signals(here=workflow.local_exec)
    # Before the first job of a real run; a dry run plans all the same.
    problems = preflight.problems(jobs, workflow.local_exec, gpu_limit())
    if problems:
        raise WorkflowError("\n".join(problems))
    for data, split in jobs.indexes:
        tracking.refresh(
            jobs.index_settings(data, split) | jobs.place_of(data), index_file(data, split)
        )
