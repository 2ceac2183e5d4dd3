# Adaptation and evaluation into parquet rows: a job for all variants of a family on one list of episodes
# (domain, shot, seed, source model, shard), with files of each variant.
LIST = "{shot}shot-seed{seed}{of_source}"
PLACE = f"{{domain}}/{{variant}}/{LIST}/{{shard}}.parquet"
ROWS = f"{FOLDER}/rows/{PLACE}"
PREDICTIONS = f"{FOLDER}/predictions/{PLACE}"
COST = f"{FOLDER}/cost/{PLACE}"  # seconds and memory, which no second run gives again
KEPT = f"{FOLDER}/kept/rows/{{domain}}/{LIST}/{{shard}}"  # a folder of each variant in it
JOB = f"{{domain}}-{LIST}-{{shard}}"


# Outputs need names that are known beforehand, so each family has its rule: `evaluate` for variants of
# HSNet, and what `evaluation_rule` says.
for FAMILY, VARIANTS in jobs.families.items():
    ON_DEVICE = jobs.on_device(FAMILY)

    rule:
        name:
            FAMILY
        input:
            unpack(functools.partial(given_to, VARIANTS)),
            index=lambda wildcards: index_of(wildcards.domain),
            episodes=EPISODES,
            pictures=PICTURES,
        output:
            rows=expand(ROWS, variant=VARIANTS, allow_missing=True),
            predictions=expand(PREDICTIONS, variant=VARIANTS, allow_missing=True),
            cost=expand(COST, variant=VARIANTS, allow_missing=True),
        log:
            f"{FOLDER}/logs/{FAMILY}/{JOB}.log",
        benchmark:
            f"{FOLDER}/benchmarks/{FAMILY}/{JOB}.tsv"
        conda:
            ENVIRONMENT
        threads: 4 if GPUS and ON_DEVICE else 1
        resources:
            gpu=GPUS if ON_DEVICE else 0,
            mem_mb=by_attempt((8000 if GPUS else 4000) if ON_DEVICE else 1000),
            runtime=by_attempt(minutes_of(VARIANTS) if ON_DEVICE else 60),
        params:
            variants=functools.partial(settings_of, VARIANTS),
            before=functools.partial(before_rows, VARIANTS),
            kept=KEPT,  # not an output: it must outlive a killed job
        message:
            f"Evaluating {len(VARIANTS)} variants on {{wildcards.domain}}, {{wildcards.shot}}-shot"
        script:
            "../scripts/evaluate.py"
