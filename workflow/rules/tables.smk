# Tables: from evaluation rows alone.
rule table1:
    input:
        of_variants(ROWS, run.variants, domain=run.domains, shot=run.shots, seed=run.seeds),
    output:
        md=report(
            "results/table1.md",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "1 main benchmark", "format": "Markdown"},
        ),
        csv="results/table1.csv",
        tex="results/table1.tex",
    log:
        f"{FOLDER}/logs/table1.log",
    benchmark:
        f"{FOLDER}/benchmarks/table1.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=run.table_settings(),
    message:
        "Making table 1"
    script:
        "../scripts/table1.py"
