# Tables: from evaluation rows and measurements alone.
TABLE_KINDS = ["html", "md", "csv", "tex", "origin.json"]
TABLE = "results/table{number}"


rule table:
    input:
        unpack(lambda wildcards: inputs_of(TABLES[int(wildcards.number)])),
    output:
        html=report(
            f"{TABLE}.html",
            caption="../report/caption.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": wildcards.number,
                "title": TABLES[int(wildcards.number)].heading,
            },
        ),
        md=f"{TABLE}.md",
        csv=f"{TABLE}.csv",
        tex=f"{TABLE}.tex",
        origin=f"{TABLE}.origin.json",
    log:
        f"{FOLDER}/logs/table{{number}}.log",
    benchmark:
        f"{FOLDER}/benchmarks/table/{{number}}.tsv"
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
