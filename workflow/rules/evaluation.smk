# Adaptation and evaluation of every (domain, variant, shot, seed, source model, shard) into parquet rows.
PLACE = "{domain}/{variant}/{shot}shot-seed{seed}{of_source}/{shard}.parquet"
ROWS = f"{FOLDER}/rows/{PLACE}"
PREDICTIONS = f"{FOLDER}/predictions/{PLACE}"
COST = f"{FOLDER}/cost/{PLACE}"  # seconds and memory, which no second run gives again
JOB = "{domain}-{variant}-{shot}shot-seed{seed}{of_source}-{shard}"


rule evaluate:
    input:
        unpack(given_to),
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=EPISODES,
    output:
        rows=ROWS,
        predictions=PREDICTIONS,
        cost=COST,
    log:
        f"{FOLDER}/logs/evaluate/{JOB}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{JOB}.tsv"
    wildcard_constraints:
        variant="|".join(jobs.device_variants) or "NONE",
    conda:
        ENVIRONMENT
    threads: 4 if GPUS else 1
    resources:
        gpu=GPUS,
        mem_mb=by_attempt(8000 if GPUS else 4000),
        runtime=by_attempt(720),
    params:
        settings=settings_of,
        before=before_rows,
    message:
        "Evaluating {wildcards.variant} on {wildcards.domain}, {wildcards.shot}-shot"
    script:
        "../scripts/evaluate.py"


# Methods that need nothing: jobs of seconds, which a profile may group.
use rule evaluate as evaluate_on_processor with:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=EPISODES,
    benchmark:
        f"{FOLDER}/benchmarks/evaluate_on_processor/{JOB}.tsv"
    wildcard_constraints:
        variant="|".join(v for v in run.variants if v not in jobs.device_variants) or "NONE",
    threads: 1
    resources:
        gpu=0,
        mem_mb=by_attempt(1000),
        runtime=by_attempt(60),
