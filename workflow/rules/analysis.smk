# Measurements in features of all variants and on filtered pictures, with the first number of shots, seed and source model.
FEATURES = f"{FOLDER}/analysis/features/{{domain}}/{{variant}}.parquet"
FILTERED = f"{FOLDER}/analysis/filtering/{{domain}}.parquet"
FIRST_LIST = f"{FOLDER}/episodes/{{domain}}/{run.shots[0]}shot-seed{run.seeds[0]}.parquet"
FIRST_PICTURES = f"{FOLDER}/episodes/{{domain}}/{run.shots[0]}shot-seed{run.seeds[0]}.pictures.json"
WEIGHTS = weights_of(run.backbone)


rule features:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=FIRST_LIST,
        pictures=FIRST_PICTURES,
        identity=IDENTITY.format(source=FIRST_HSNET or "NONE"),
        checkpoint=ancient(CHECKPOINT.format(source=FIRST_HSNET or "NONE")),
        weights=[ancient(WEIGHTS)] if WEIGHTS else [],
    output:
        expand(FEATURES, variant=sorted(shown.analysed) or "NONE", allow_missing=True),
    log:
        f"{FOLDER}/logs/features/{{domain}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/features/{{domain}}.tsv"
    conda:
        ENVIRONMENT
    threads: 4 if GPUS else 1
    resources:
        gpu=GPUS,
        mem_mb=by_attempt(8000 if GPUS else 4000),
        runtime=by_attempt(240),
    params:
        variants=lambda w: {name: jobs.analysis_settings(w.domain, name) for name in sorted(shown.analysed)},
        before=before_measurement,
        kept=f"{FOLDER}/kept/features/{{domain}}",  # not an output: it must outlive a killed job
    message:
        "Measuring features on {wildcards.domain}"
    script:
        "../scripts/measure_features.py"


rule filtering:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        episodes=FIRST_LIST,
        pictures=FIRST_PICTURES,
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
