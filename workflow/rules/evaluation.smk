# Adaptation and evaluation of every (domain, variant, shot, seed, shard) into parquet rows.
ROWS = f"{FOLDER}/rows/{{domain}}/{{variant}}/{{shot}}shot-seed{{seed}}/{{shard}}.parquet"
PREDICTIONS = ROWS.replace("/rows/", "/predictions/")
JOB = "{domain}-{variant}-{shot}shot-seed{seed}-{shard}"
TRIVIAL = [name for name in run.variants if name not in run.models]


def settings_of(wildcards):
    """What the rows of a job depend on; a change runs exactly the jobs that it touches again."""
    settings = run.evaluation_settings(
        wildcards.domain, wildcards.variant, int(wildcards.shot), int(wildcards.seed)
    )
    return settings | {"shard": int(wildcards.shard), "shards": run.shards}


rule evaluate:
    message:
        "Evaluating {wildcards.variant} on {wildcards.domain}, {wildcards.shot}-shot"
    input:
        index=f"{FOLDER}/index/{{domain}}.parquet",
        episodes=f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet",
        # The small file tells whether the model changed; a touched large one loses no GPU work.
        identity=rules.source.output.identity,
        checkpoint=ancient(rules.source.output.checkpoint),
        weights=ancient(WEIGHTS) if WEIGHTS else [],
    output:
        rows=ROWS,
        predictions=PREDICTIONS,
    wildcard_constraints:
        variant="|".join(run.models) or "NONE",
    params:
        settings=settings_of,
        device=run.device,
    log:
        f"{FOLDER}/logs/evaluate/{JOB}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{JOB}.tsv"
    threads: 4 if GPUS else 1
    resources:
        gpu=GPUS,
        mem_mb=16000 if GPUS else 4000,
        runtime=720,
    conda:
        ENVIRONMENT
    script:
        "../scripts/evaluate.py"


rule evaluate_trivial:
    message:
        "Evaluating {wildcards.variant} on {wildcards.domain}, {wildcards.shot}-shot, without a model"
    input:
        index=f"{FOLDER}/index/{{domain}}.parquet",
        episodes=f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet",
    output:
        rows=ROWS,
        predictions=PREDICTIONS,
    wildcard_constraints:
        variant="|".join(TRIVIAL) or "NONE",
    params:
        settings=settings_of,
    log:
        f"{FOLDER}/logs/evaluate/{JOB}.log",
    benchmark:
        f"{FOLDER}/benchmarks/evaluate/{JOB}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    conda:
        ENVIRONMENT
    script:
        "../scripts/evaluate_trivial.py"
