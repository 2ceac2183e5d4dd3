# Figures: from the training history, evaluation rows and stored predictions.
if not run.source.checkpoint:

    rule training_history:
        input:
            rules.source.output.history,
        output:
            report(
                multiext(f"{FOLDER}/figures/training_history", ".png", ".svg"),
                caption="../report/training_history.rst",
                category="Figures",
                labels={"figure": "source training"},
            ),
        log:
            f"{FOLDER}/logs/training_history.log",
        benchmark:
            f"{FOLDER}/benchmarks/training_history.tsv"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=1000,
            runtime=10,
        message:
            "Plotting the source training"
        script:
            "../scripts/training_history.py"


rule episode_grid:
    input:
        index=f"{FOLDER}/index/{{domain}}.parquet",
        rows=of_variants(ROWS, run.variants, seed=run.seeds[0], allow_missing=True),
        predictions=of_variants(
            PREDICTIONS, run.models or run.variants, seed=run.seeds[0], allow_missing=True
        ),
    output:
        report(
            multiext(f"{FOLDER}/figures/episodes-{{domain}}-{{shot}}shot", ".png", ".svg"),
            caption="../report/episode_grid.rst",
            category="Figures",
            labels={"figure": "episodes of {domain}", "shot": "{shot}"},
        ),
    log:
        f"{FOLDER}/logs/episode_grid/{{domain}}-{{shot}}shot.log",
    benchmark:
        f"{FOLDER}/benchmarks/episode_grid/{{domain}}-{{shot}}shot.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        variants={n: v.title or n for n, v in (run.models or run.variants).items()},
    message:
        "Drawing episodes of {wildcards.domain}, {wildcards.shot}-shot"
    script:
        "../scripts/episode_grid.py"
