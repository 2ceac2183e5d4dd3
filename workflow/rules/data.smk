# Raw data (downloaded or generated), index, episode lists.
DOWNLOADED = [n for n, d in run.data.items() if d.root is None and d.synthetic is None]
GENERATED = [n for n, d in run.data.items() if d.synthetic is not None]
EPISODES = f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.parquet"
# Small files that say that the pictures of a list, or of a whole index, are prepared, and where.
PICTURES = f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{{seed}}.pictures.json"
ALL_PICTURES = f"{FOLDER}/index/{{data}}/{{split}}.pictures.json"


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


# The pictures themselves are no output: those of all lists lie together, a new list adds what is new in
# it, and they may be deleted without that what was made with them runs again.
rule pictures:
    input:
        index=lambda wildcards: index_file(wildcards.data, shown_split(wildcards)),
        episodes=lambda wildcards: (
            f"{FOLDER}/episodes/{wildcards.data}/{wildcards.which}.parquet"
            if wildcards.of == "episodes"
            else []
        ),
    output:
        f"{FOLDER}/{{of}}/{{data}}/{{which}}.pictures.json",
    log:
        f"{FOLDER}/logs/pictures/{{of}}-{{data}}-{{which}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/pictures/{{of}}-{{data}}-{{which}}.tsv"
    wildcard_constraints:
        of="episodes|index",
        which="[^/.]+",
    conda:
        ENVIRONMENT
    threads: 8
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(120),
    params:
        settings=jobs.picture_settings(),
        before=lambda wildcards: pictures_of(wildcards.data, shown_split(wildcards)),
        folder=lambda wildcards: f"{FOLDER}/pictures/{wildcards.data}/{shown_split(wildcards)}",
    message:
        "Preparing pictures of {wildcards.data}, {wildcards.which}"
    script:
        "../scripts/pictures.py"
