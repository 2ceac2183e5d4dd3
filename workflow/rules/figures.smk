# Figures: from the training history, rows, measurements and stored predictions; the page of the run.
FIGURE_KINDS = ["png", "svg"]
FIGURE = f"{FOLDER}/figures/{{figure}}"
GRID = f"{FOLDER}/figures/episodes-{{domain}}-{{shot}}shot"
GALLERY = f"{FOLDER}/gallery/{{domain}}-{{shot}}shot/gallery.json"


rule figure:
    input:
        unpack(lambda wildcards: inputs_of(FIGURES[wildcards.figure])),
    output:
        report(
            multiext(FIGURE, ".png", ".svg"),
            caption="../report/caption.rst",
            category="Figures",
            labels=lambda wildcards: {"figure": FIGURES[wildcards.figure].heading},
        ),
    log:
        f"{FOLDER}/logs/figure/{{figure}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/figure/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(20),
    params:
        settings=SHOWN,
        before=lambda wildcards: before(*FIGURES[wildcards.figure].needs),
        caption=lambda wildcards: FIGURES[wildcards.figure].caption,
    message:
        "Drawing {wildcards.figure}"
    script:
        "../scripts/figure.py"


if TRAINED:

    rule training_history:
        input:
            expand(HISTORY, source=TRAINED),
        output:
            report(
                multiext(f"{FOLDER}/figures/training_history", ".png", ".svg"),
                caption="../report/caption.rst",
                category="Figures",
                labels={"figure": TRAINING_HISTORY.heading},
            ),
        log:
            f"{FOLDER}/logs/training_history.log",
        benchmark:
            f"{FOLDER}/benchmarks/training_history.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=by_attempt(1000),
            runtime=by_attempt(10),
        params:
            caption=TRAINING_HISTORY.caption,
            before=lambda wildcards: list(map(model, TRAINED)),
        message:
            "Plotting the source training"
        script:
            "../scripts/training_history.py"


rule episode_grid:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        pictures=f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{run.seeds[0]}.pictures.json",
        rows=lambda wildcards: of_episodes(ROWS, wildcards),
        beside=lambda wildcards: beside(shown.pictured, **lists_of(wildcards)),
        predictions=lambda wildcards: of_episodes(PREDICTIONS, wildcards),
    output:
        report(
            multiext(GRID, ".png", ".svg"),
            caption="../report/caption.rst",
            category="Episodes",
            labels={"domain": "{domain}", "shots": "{shot}"},
        ),
    log:
        f"{FOLDER}/logs/episode_grid/{{domain}}-{{shot}}shot.log",
    benchmark:
        f"{FOLDER}/benchmarks/episode_grid/{{domain}}-{{shot}}shot.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(20),
    params:
        variants=shown.pictured,
        before=before_episodes,
        caption=EPISODE_GRID.caption,
    message:
        "Drawing episodes of {wildcards.domain}, {wildcards.shot}-shot"
    script:
        "../scripts/episode_grid.py"


rule gallery:
    input:
        index=lambda wildcards: index_of(wildcards.domain),
        pictures=f"{FOLDER}/episodes/{{domain}}/{{shot}}shot-seed{run.seeds[0]}.pictures.json",
        rows=lambda wildcards: of_episodes(ROWS, wildcards),
        beside=lambda wildcards: beside(shown.pictured, **lists_of(wildcards)),
        predictions=lambda wildcards: of_episodes(PREDICTIONS, wildcards),
    output:
        GALLERY,
    log:
        f"{FOLDER}/logs/gallery/{{domain}}-{{shot}}shot.log",
    benchmark:
        f"{FOLDER}/benchmarks/gallery/{{domain}}-{{shot}}shot.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(20),
    params:
        variants=shown.pictured,
        before=before_episodes,
    message:
        "Making pictures of {wildcards.domain}, {wildcards.shot}-shot, for the page"
    script:
        "../scripts/gallery.py"


ALL_NEEDS = sorted({need for entry in (*TABLES.values(), *FIGURES.values()) for need in entry.needs})
PAGED = [
    *expand(f"{FIGURE}.png", figure=FIGURES),
    *expand(f"{GRID}.png", domain=run.domains, shot=run.shots),
    *([f"{FOLDER}/figures/training_history.png"] if TRAINED else []),
]


rule page:
    input:
        tables=expand(f"{TABLE}.html", number=TABLES),
        galleries=expand(GALLERY, domain=run.domains, shot=run.shots),
        figures=PAGED,
        indexes=[index_file(*pair) for pair in jobs.indexes],
    output:
        "results/index.html",
    log:
        f"{FOLDER}/logs/page.log",
    benchmark:
        f"{FOLDER}/benchmarks/page.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(1000),
        runtime=by_attempt(10),
    params:
        settings=SHOWN,
        before=before(*ALL_NEEDS),
    message:
        "Making the page of the run"
    script:
        "../scripts/page.py"
