# Measurements in features and on filtered pictures, with the first number of shots, seed and source model.
FEATURES = f"{FOLDER}/analysis/features/{{domain}}/{{variant}}.parquet"
FILTERED = f"{FOLDER}/analysis/filtering/{{domain}}.parquet"
FIRST_LIST = f"{FOLDER}/episodes/{{domain}}/{run.shots[0]}shot-seed{run.seeds[0]}.parquet"
WEIGHTS = weights_of(run.backbone)


rule features:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=FIRST_LIST,
        identity=IDENTITY.format(source=FIRST_HSNET or "NONE"),
        checkpoint=ancient(CHECKPOINT.format(source=FIRST_HSNET or "NONE")),
        weights=ancient(WEIGHTS) if WEIGHTS else [],
    output:
        FEATURES,
    log:
        f"{FOLDER}/logs/features/{{domain}}-{{variant}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/features/{{domain}}-{{variant}}.tsv"
    wildcard_constraints:
        variant="|".join(shown.analysed) or "NONE",
    conda:
        ENVIRONMENT
    threads: 4 if GPUS else 1
    resources:
        gpu=GPUS,
        mem_mb=by_attempt(8000 if GPUS else 4000),
        runtime=by_attempt(240),
    params:
        settings=lambda wildcards: jobs.analysis_settings(wildcards.domain, wildcards.variant),
        before=before_measurement,
    message:
        "Measuring features of {wildcards.variant} on {wildcards.domain}"
    script:
        "../scripts/measure_features.py"


rule filtering:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=FIRST_LIST,
        identity=IDENTITY.format(source=FIRST_HSNET or "NONE"),
        checkpoint=ancient(CHECKPOINT.format(source=FIRST_HSNET or "NONE")),
        weights=ancient(WEIGHTS) if WEIGHTS else [],
    output:
        FILTERED,
    log:
        f"{FOLDER}/logs/filtering/{{domain}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/filtering/{{domain}}.tsv"
    conda:
        ENVIRONMENT
    threads: 4 if GPUS else 1
    resources:
        gpu=GPUS,
        mem_mb=by_attempt(8000 if GPUS else 4000),
        runtime=by_attempt(240),
    params:
        settings=lambda wildcards: jobs.filtering_settings(wildcards.domain),
        before=before_measurement,
    message:
        "Evaluating the source model on filtered pictures of {wildcards.domain}"
    script:
        "../scripts/measure_filtering.py"
