# Source models: backbone weights, an HSNet training for each seed, or an existing checkpoint.
WEIGHTS = weights_of(run.backbone)  # of the source models
CHECKPOINT = f"{FOLDER}/source/{{source}}/checkpoint.safetensors"
IDENTITY = f"{FOLDER}/source/{{source}}/checkpoint.json"
HISTORY = f"{FOLDER}/source/{{source}}/history.parquet"


rule backbone:
    output:
        f"{run.folder}/backbones/{{file}}",
    log:
        f"{FOLDER}/logs/backbone/{{file}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/backbone/{{file}}.tsv"
    retries: RETRIES
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(60),
    params:
        backbone=lambda wildcards: next(
            name
            for name in jobs.backbones
            if weights_of(name) == f"{run.folder}/backbones/{wildcards.file}"
        ),
    message:
        "Downloading weights {wildcards.file}"
    script:
        "../scripts/backbone.py"


if run.source.checkpoint:

    rule source:
        input:
            # Its content is a parameter: a touched or copied file loses no GPU work.
            checkpoint=ancient(str(run.source.checkpoint)),
        output:
            checkpoint=CHECKPOINT,
            identity=IDENTITY,
        log:
            f"{FOLDER}/logs/source/{{source}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/source/{{source}}.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=by_attempt(2000),
            runtime=by_attempt(10),
        params:
            backbone=run.backbone,
            content=lambda wildcards, input: files.hash_if_there(input.checkpoint),
        message:
            "Taking the source model from {input.checkpoint}"
        script:
            "../scripts/take_checkpoint.py"

else:

    rule source:
        input:
            source=index_file(run.source.data, SOURCE_SPLIT),
            validation=index_file(run.source.validation.data, run.source.validation.split),
            weights=WEIGHTS or [],
        output:
            checkpoint=CHECKPOINT,
            identity=IDENTITY,
            history=HISTORY,
        log:
            f"{FOLDER}/logs/source/{{source}}.log",
        benchmark:
            f"{FOLDER}/benchmarks/source/{{source}}.tsv"
        conda:
            ENVIRONMENT
        threads: 8 if GPUS else run.compute.threads
        resources:
            gpu=GPUS,
            mem_mb=by_attempt(16000),
            runtime=by_attempt(2880),
        params:
            settings=lambda wildcards: jobs.source_settings(int(wildcards.source)),
            before=lambda wildcards: model(int(wildcards.source)),
            state=f"{FOLDER}/source/{{source}}/state",  # not an output: it must outlive a killed job
        message:
            "Training HSNet ({run.backbone}) on {run.source.data}, seed {wildcards.source}"
        script:
            "../scripts/source.py"
