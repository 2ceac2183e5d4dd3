# Raw data (downloaded or generated), index, episode lists.
DOWNLOADED = [n for n, d in run.data.items() if d.root is None and d.synthetic is None]
GENERATED = [n for n, d in run.data.items() if d.synthetic is not None]


def raw_marker(wildcards):
    """The file that says raw data is complete; none for a data set with its own root."""
    if run.data[wildcards.data].root is not None:
        return []
    return f"{run.folder}/{wildcards.data}/complete.json"


rule download:
    message:
        "Downloading data set {wildcards.data}"
    output:
        f"{run.folder}/{{data}}/complete.json",
    wildcard_constraints:
        data="|".join(DOWNLOADED) or "NONE",
    params:
        settings=lambda wildcards: run.index_settings(wildcards.data),
    log:
        f"{FOLDER}/logs/download/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/download/{{data}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=720,
    conda:
        ENVIRONMENT
    script:
        "../scripts/download.py"


rule generate:
    message:
        "Generating data set {wildcards.data}"
    output:
        f"{run.folder}/{{data}}/complete.json",
    wildcard_constraints:
        data="|".join(GENERATED) or "NONE",
    params:
        settings=lambda wildcards: run.index_settings(wildcards.data),
    log:
        f"{FOLDER}/logs/generate/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/generate/{{data}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        ENVIRONMENT
    script:
        "../scripts/generate.py"


rule index:
    message:
        "Preparing and indexing data set {wildcards.data}"
    input:
        raw_marker,
    output:
        f"{FOLDER}/index/{{data}}.parquet",
    params:
        settings=lambda wildcards: run.index_settings(wildcards.data),
    log:
        f"{FOLDER}/logs/index/{{data}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/index/{{data}}.tsv"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        ENVIRONMENT
    script:
        "../scripts/index.py"


rule episodes:
    message:
        "Drawing {wildcards.shot}-shot episodes of {wildcards.domain}"
    input:
        index=f"{FOLDER}/index/{{domain}}.parquet",
    output:
        f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet",
    params:
        settings=lambda w: run.episode_settings(w.domain, int(w.shot), int(w.seed)),
    log:
        f"{FOLDER}/logs/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=20,
    conda:
        ENVIRONMENT
    script:
        "../scripts/episodes.py"
