# Tables: from evaluation rows and measurements alone.
FEATURES_FILES = expand(FEATURES, domain=run.domains, variant=run.analysed)
FILTERED_FILES = expand(FILTERED, domain=run.domains) if run.models else []


rule table:
    input:
        rows=rows_of_table,
        features=lambda wildcards: FEATURES_FILES if wildcards.number in "34" else [],
        filtered=lambda wildcards: FILTERED_FILES if wildcards.number == "3" else [],
    output:
        html=report(
            "results/table{number}.html",
            caption="../report/caption.rst",
            category="Tables",
            labels=lambda wildcards: {"table": wildcards.number, "title": TABLES[int(wildcards.number)]},
        ),
        md="results/table{number}.md",
        csv="results/table{number}.csv",
        tex="results/table{number}.tex",
    log:
        f"{FOLDER}/logs/table{{number}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/table{{number}}.tsv"
    wildcard_constraints:
        number="[1-6]",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=SHOWN,
        caption=lambda wildcards: TABLES[int(wildcards.number)],
    message:
        "Making table {wildcards.number}"
    script:
        "../scripts/table.py"
