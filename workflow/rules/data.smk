# Raw data (downloaded or generated), index, episode lists.
DOWNLOADED = [n for n, d in run.data.items() if d.root is None and d.synthetic is None]
GENERATED = [n for n, d in run.data.items() if d.synthetic is not None]
EPISODES = f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet"


rule download:
    output:
        f"{run.folder}/{{data}}/{{origin}}/complete.json",
    log:
        f"{FOLDER}/logs/download/{{data}}-{{origin}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/download/{{data}}-{{origin}}.tsv"
    wildcard_constraints:
        data="|".join(DOWNLOADED) or "NONE",
    retries: RETRIES
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(720),
    params:
        settings=lambda wildcards: jobs.raw_settings(wildcards.data),
    message:
        "Downloading data set {wildcards.data}"
    script:
        "../scripts/download.py"


rule generate:
    output:
        f"{run.folder}/{{data}}/{{origin}}/complete.json",
    log:
        f"{FOLDER}/logs/generate/{{data}}-{{origin}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/generate/{{data}}-{{origin}}.tsv"
    wildcard_constraints:
        data="|".join(GENERATED) or "NONE",
    conda:
        ENVIRONMENT
    threads: 8 if run.scale else 1
    resources:
        mem_mb=by_attempt(2000 if run.scale else 1000),
        runtime=by_attempt(60 if run.scale else 10),
    params:
        settings=lambda wildcards: jobs.raw_settings(wildcards.data),
    message:
        "Generating data set {wildcards.data}"
    script:
        "../scripts/generate.py"


rule index:
    input:
        raw_marker,
    output:
        f"{FOLDER}/index/{{data}}/{{split}}.parquet",
    log:
        f"{FOLDER}/logs/index/{{data}}-{{split}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/index/{{data}}-{{split}}.tsv"
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(120),
    params:
        settings=lambda wildcards: jobs.index_settings(wildcards.data, wildcards.split),
        pictures=lambda wildcards: pictures_of(wildcards.data, wildcards.split),
    message:
        "Preparing and indexing data set {wildcards.data}, split {wildcards.split}"
    script:
        "../scripts/index.py"


rule episodes:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
    output:
        EPISODES,
    log:
        f"{FOLDER}/logs/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/episodes/{{domain}}-{{shot}}shot-seed{{seed}}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(20),
    params:
        settings=lambda w: jobs.episode_settings(w.domain, int(w.shot), int(w.seed)),
        before=lambda w: list_of(w.domain, w.shot, w.seed),
    message:
        "Drawing {wildcards.shot}-shot episodes of {wildcards.domain}"
    script:
        "../scripts/episodes.py"
