# Tables: from evaluation rows and measurements alone.


rule table:
    input:
        unpack(lambda wildcards: inputs_of(TABLES[int(wildcards.number)])),
    output:
        html=report(
            "results/table{number}.html",
            caption="../report/caption.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": wildcards.number,
                "title": TABLES[int(wildcards.number)].heading,
            },
        ),
        md="results/table{number}.md",
        csv="results/table{number}.csv",
        tex="results/table{number}.tex",
        origin="results/table{number}.origin.json",
    log:
        f"{FOLDER}/logs/table{{number}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/table{{number}}.tsv"
    wildcard_constraints:
        number="|".join(map(str, TABLES)),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(10),
    params:
        settings=SHOWN,
        before=lambda wildcards: before(*TABLES[int(wildcards.number)].needs),
        caption=lambda wildcards: TABLES[int(wildcards.number)].heading,
    message:
        "Making table {wildcards.number}"
    script:
        "../scripts/table.py"
