# Raw data (downloaded or generated), index, episode lists.
DOWNLOADED = [n for n, d in run.data.items() if d.root is None and d.synthetic is None]
GENERATED = [n for n, d in run.data.items() if d.synthetic is not None]


rule download:
    output:
        f"{run.folder}/{{data}}/complete.json",
    log:
        f"{FOLDER}/logs/download/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/download/{{data}}.tsv"
    wildcard_constraints:
        data="|".join(DOWNLOADED) or "NONE",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    params:
        settings=lambda wildcards: run.raw_settings(wildcards.data),
    message:
        "Downloading data set {wildcards.data}"
    script:
        "../scripts/download.py"


rule generate:
    output:
        f"{run.folder}/{{data}}/complete.json",
    log:
        f"{FOLDER}/logs/generate/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/generate/{{data}}.tsv"
    wildcard_constraints:
        data="|".join(GENERATED) or "NONE",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda wildcards: run.raw_settings(wildcards.data),
    message:
        "Generating data set {wildcards.data}"
    script:
        "../scripts/generate.py"


rule index:
    input:
        raw_marker,
    output:
        f"{FOLDER}/index/{{data}}.parquet",
    log:
        f"{FOLDER}/logs/index/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/index/{{data}}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        settings=lambda wildcards: run.index_settings(wildcards.data),
    message:
        "Preparing and indexing data set {wildcards.data}"
    script:
        "../scripts/index.py"


rule episodes:
    input:
        index=f"{FOLDER}/index/{{domain}}.parquet",
    output:
        f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet",
    log:
        f"{FOLDER}/logs/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        settings=lambda w: run.episode_settings(w.domain, int(w.shot), int(w.seed)),
    message:
        "Drawing {wildcards.shot}-shot episodes of {wildcards.domain}"
    script:
        "../scripts/episodes.py"
