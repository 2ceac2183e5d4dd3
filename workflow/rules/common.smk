# The checked configuration, and what rules share: wildcards, folders, resources.
import functools
import itertools
import json
import shutil

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


def shown_split(wildcards):
    """Split of the pictures of a list or an index."""
    return run.domains[wildcards.data].split if wildcards.of == "episodes" else wildcards.which


def main_process():
    """Whether this is the user's own Snakemake, not the one of a single job."""
    return workflow.exec_mode == workflow.exec_mode.DEFAULT


# Where a second try can help by itself: servers fail for a moment. Profiles of clusters retry other
# rules too. None within a job, whose own Snakemake would try as often again, each time.
RETRIES = 2 if main_process() else 0


def by_attempt(first):
    """A resource that doubles with each attempt of a job.

    What rules ask for at first is what was measured on a processor, at the paper's sizes, and room on
    top (docs/explanation/performance.md); what a GPU's libraries take of the machine's memory was not
    measured.
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


def before_rows(variants, wildcards):
    """What the rows of a family's job depend on besides their settings."""
    list_ = list_of(wildcards.domain, wildcards.shot, wildcards.seed)
    needed = model_of(variants[0], source_of(wildcards))
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


def settings_of(variants, wildcards):
    """What the rows of a family's job depend on, by variant; the job makes anew those that a change is of."""
    list_ = wildcards.domain, int(wildcards.shot), int(wildcards.seed), source_of(wildcards)
    return {name: row_settings(name, *list_, int(wildcards.shard)) for name in variants}


def row_settings(variant, domain, shot, seed, source, shard):
    """What the rows of a variant depend on."""
    settings = jobs.evaluation_settings(domain, variant, shot, seed, source)
    return settings | {"shard": shard, "shards": jobs.shards_of(variant)}


# A job makes the files of many variants, and by itself Snakemake would make anew all that is made from any
# of them once the settings of one have changed.


@functools.cache
def staying(family, domain, shot, seed, source):
    """Variants of a family whose rows of a list stay as they are in a run that makes those of others."""
    variants = jobs.families[family]
    ends = {"domain": domain, "shot": shot, "seed": seed, "of_source": of_source(source), "shard": 0}
    return unchanged(
        {
            name: (ROWS.format(variant=name, **ends), row_settings(name, domain, shot, seed, source, 0))
            for name in variants
        }
    )


@functools.cache
def measurements_staying(domain):
    """Variants whose measurements of a domain stay as they are in a run that makes those of others."""
    settings = {name: jobs.analysis_settings(domain, name) for name in shown.analysed}
    return unchanged(
        {name: (FEATURES.format(domain=domain, variant=name), settings[name]) for name in settings}
    )


def unchanged(wanted):
    """Names whose file is of the settings that are wanted, where others' are not; else none.

    Where no settings have changed, and after `-R`, it is content that says what follows.

    Args:
        wanted: file and settings, by name.
    """
    if not main_process() or workflow.dag_settings.forcerun or workflow.dag_settings.forceall:
        return set()
    same = {name for name, (file, settings) in wanted.items() if provenance.is_of(file, settings)}
    return same if len(same) < len(wanted) else set()


def of_variants(pattern, variants, *, domain, shot, seed, sources=None):
    """Files of variants, each split into as many shards as that variant is, of so many source models."""
    found = []
    for variant, *list_ in itertools.product(variants, domain, shot, seed):
        for source in jobs.sources_of(variant)[:sources]:
            ends = dict(zip(("domain", "shot", "seed"), list_)) | {"of_source": of_source(source)}
            made = expand(pattern, variant=variant, shard=range(jobs.shards_of(variant)), **ends)
            stays = variant in staying(jobs.family_of(variant), *list_, source)
            found += map(ancient, made) if stays else made
    return found


def of_every_list(pattern, variants):
    """Files of variants on all lists."""
    return of_variants(pattern, variants, domain=run.domains, shot=run.shots, seed=run.seeds)


def beside(variants, **lists):
    """Rows of others that the jobs of some variants make as well, which only have to be there.

    Of a job with a file that was never made Snakemake knows no earlier settings. Were only one asked for
    that is there, it would stay, whatever its settings are now.

    Args:
        lists: as `of_variants`.
    """
    families = set(map(jobs.family_of, variants))
    others = [name for name in run.variants if jobs.family_of(name) in families and name not in variants]
    return list(map(ancient, of_variants(ROWS, others, **lists)))


def lists_of(wildcards):
    """Lists that pictures of episodes of one domain and number of shots are of, for `of_variants`."""
    return {
        "domain": [wildcards.domain],
        "shot": [int(wildcards.shot)],
        "seed": run.seeds[:1],
        "sources": 1,
    }


def of_episodes(pattern, wildcards):
    """Files that such pictures are made from."""
    return of_variants(pattern, shown.pictured, **lists_of(wildcards))


def measurements():
    """Files of all measurements of features."""
    found = []
    for domain in run.domains:
        for variant in shown.analysed:
            file = FEATURES.format(domain=domain, variant=variant)
            found.append(ancient(file) if variant in measurements_staying(domain) else file)
    return found


def clear_kept():
    """Remove what jobs have kept of variants, lists and shards that the run has not, and results neither.

    Where files are linked, what stays takes no room but that of the results.
    """
    wanted = {*of_every_list(ROWS, run.variants), *measurements()}
    place = Path(FOLDER, "kept")
    made = [
        *((kept, f"{FOLDER}/rows/{{0}}/{{3}}/{{1}}/{{2}}.parquet") for kept in place.glob("rows/*/*/*/*")),
        *((kept, f"{FOLDER}/analysis/features/{{2}}/{{3}}.parquet") for kept in place.glob("features/*/*")),
    ]
    for kept, pattern in made:
        file = pattern.format(*kept.parts[-4:])
        if file not in wanted and not os.path.exists(file):
            shutil.rmtree(kept, ignore_errors=True)


def inputs_of(entry):
    """Files that a table or figure is made from, by kind."""
    names = [name for need in entry.needs for name in shown.by_subject.get(need, [])]
    filtered = expand(FILTERED, domain=run.domains) if FIRST_HSNET else []
    return {
        "rows": of_every_list(ROWS, names),
        "beside": beside(names, domain=run.domains, shot=run.shots, seed=run.seeds),
        "features": measurements() if "features" in entry.needs else [],
        "filtered": filtered if "filtered" in entry.needs else [],
        "index": list(map(index_of, run.domains)) if "index" in entry.needs else [],
        "cost": of_every_list(COST, shown.by_subject["cost"]) if "cost" in entry.needs else [],
    }


def weights_of(backbone):
    """File of a frozen network's ImageNet weights; None where they are an installed package."""
    return preflight.weights_file(run, backbone) if backbone else None


def given_to(variants, wildcards):
    """Files that the methods of a family need besides pictures and lists."""
    needed = {}
    if name := model_of(variants[0], source_of(wildcards)):
        # The small file tells whether the model changed; a touched large one loses no GPU work.
        needed["identity"] = IDENTITY.format(source=name)
        needed["checkpoint"] = ancient(CHECKPOINT.format(source=name))
    weights = dict.fromkeys(map(weights_of, map(run.backbone_of, variants)))
    return needed | {"weights": [ancient(file) for file in weights if file]}


def minutes_of(variants):
    """Minutes that a job of variants asks for at first: four hours each, half a day to two days.

    One that needs more goes on, in its next attempt, after the variants that it has finished.
    """
    return min(max(720, 240 * len(variants)), 2880)


def gpu_limit():
    """GPUs that jobs may use at once; None where nothing limits them, as on a cluster."""
    return limit_of("gpu")


def cores():
    """Cores that jobs may use at once; None where these run on other machines."""
    return None if workflow.resource_settings.nodes is not None else limit_of("_cores")


def limit_of(resource):
    limit = workflow.global_resources.get(resource)
    return getattr(limit, "value", limit)  # Snakemake wraps the number since 9.20


if workflow.exec_mode != workflow.exec_mode.SUBPROCESS:
    os.environ.update({stopping.RUN: stopping.this_run()})
if main_process() and "--unlock" not in sys.argv:
    # Without a limit every core would start a GPU job; with `--jobs N` they run elsewhere.
    if gpu_limit() is None and workflow.resource_settings.nodes is None:
        workflow.register_resource("gpu", max(1, len(devices.visible())))
    for line in [
        *runs.enter(elsewhere=workflow.resource_settings.nodes is not None),
        *preflight.warnings(jobs, GPUS, gpu_limit(), cores()),
        *preflight.older_code(jobs, FOLDER),
        *preflight.stale_indexes(jobs, index_file, pictures_of),
    ]:
        logger.warning(line)


onstart:
    stopping.end_jobs_on_signals(here=workflow.local_exec)
    # Before the first job of a real run; a dry run plans all the same.
    problems = preflight.problems(jobs, workflow.local_exec, gpu_limit())
    if problems:
        raise WorkflowError("\n".join(problems))
    clear_kept()
    for data, split in jobs.indexes:
        tracking.refresh(
            jobs.index_settings(data, split) | jobs.place_of(data), index_file(data, split)
        )
