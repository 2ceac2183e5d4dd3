# Source models: backbone weights, a training for each host and seed, or an existing checkpoint.
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


rule given_source:
    input:
        # Its content is a parameter: a touched or copied file loses no GPU work.
        checkpoint=lambda wildcards: ancient(str(run.source.of(host_of(wildcards)).checkpoint)),
    output:
        checkpoint=CHECKPOINT,
        identity=IDENTITY,
    log:
        f"{FOLDER}/logs/source/{{source}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/source/{{source}}.tsv"
    wildcard_constraints:
        source="|".join(name for name in MODELS if name not in TRAINED) or "NONE",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(10),
    params:
        host=host_of,
        backbone=lambda wildcards: run.backbone_of_host(host_of(wildcards)),
        content=lambda wildcards, input: files.hash_if_there(input.checkpoint),
    message:
        "Taking the source model from {input.checkpoint}"
    script:
        "../scripts/take_checkpoint.py"


rule source:
    input:
        source=index_file(run.source.data, SOURCE_SPLIT),
        validation=index_file(run.source.validation.data, run.source.validation.split),
        source_pictures=ALL_PICTURES.format(data=run.source.data, split=SOURCE_SPLIT),
        validation_pictures=ALL_PICTURES.format(
            data=run.source.validation.data, split=run.source.validation.split
        ),
        weights=lambda wildcards: weights_of(run.backbone_of_host(host_of(wildcards))) or [],
    output:
        checkpoint=CHECKPOINT,
        identity=IDENTITY,
        history=HISTORY,
    log:
        f"{FOLDER}/logs/source/{{source}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/source/{{source}}.tsv"
    wildcard_constraints:
        source="|".join(TRAINED) or "NONE",
    conda:
        ENVIRONMENT
    threads: 8 if GPUS else run.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=by_attempt(16000),
        runtime=by_attempt(2880),
    params:
        settings=lambda wildcards: source_settings(wildcards.source),
        before=lambda wildcards: model(wildcards.source),
        state=f"{FOLDER}/source/{{source}}/state",  # not an output: it must outlive a killed job
    message:
        f"Training source model {{wildcards.source}} on {run.source.data}"
    script:
        "../scripts/source.py"
