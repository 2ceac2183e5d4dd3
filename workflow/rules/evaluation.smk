# Adaptation and evaluation of every (domain, variant, shot, seed, shard) into parquet rows.
PLACE = "{domain}/{variant}/{shot}shot-seed{seed}/{shard}.parquet"
ROWS = f"{FOLDER}/rows/{PLACE}"
PREDICTIONS = f"{FOLDER}/predictions/{PLACE}"
COST = f"{FOLDER}/cost/{PLACE}"  # seconds and memory, which no second run gives again
JOB = "{domain}-{variant}-{shot}shot-seed{seed}-{shard}"
TRIVIAL = [name for name in run.variants if name not in run.models]


rule evaluate:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=EPISODES,
        # The small file tells whether the model changed; a touched large one loses no GPU work.
        identity=rules.source.output.identity,
        checkpoint=ancient(rules.source.output.checkpoint),
        weights=ancient(WEIGHTS) if WEIGHTS else [],
    output:
        rows=ROWS,
        predictions=PREDICTIONS,
        cost=COST,
    log:
        f"{FOLDER}/logs/evaluate/{JOB}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{JOB}.tsv"
    wildcard_constraints:
        variant="|".join(run.models) or "NONE",
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


rule evaluate_trivial:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=EPISODES,
    output:
        rows=ROWS,
        predictions=PREDICTIONS,
        cost=COST,
    log:
        f"{FOLDER}/logs/evaluate/{JOB}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate_trivial/{JOB}.tsv"
    wildcard_constraints:
        variant="|".join(TRIVIAL) or "NONE",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(60),
    params:
        settings=settings_of,
        before=before_rows,
    message:
        "Evaluating {wildcards.variant} on {wildcards.domain}, {wildcards.shot}-shot, without a model"
    script:
        "../scripts/evaluate_trivial.py"
