rule alignment:
    input:
        inputs("alignment"),
    output:
        update("artefacts/alignment/{name}/provenance.json"),
    log:
        "logs/alignment/{name}.log",
    threads: 1
    params:
        code=code("alignment"),
        suite=suite("alignment"),
    shell:
        "prefdist make artefacts/alignment/{wildcards.name} --suite {params.suite} 2> {log}"


rule adl_results:
    input:
        inputs("adl_results"),
    output:
        update("artefacts/adl_results/{name}/provenance.json"),
        update("artefacts/adl_results/{name}/metrics.parquet"),
        update(report("artefacts/adl_results/{name}/table.csv", caption="../report/alignment.rst", category="Tables")),
    log:
        "logs/adl_results/{name}.log",
    threads: 1
    params:
        code=code("adl_results"),
        suite=suite("adl_results"),
    shell:
        "prefdist make artefacts/adl_results/{wildcards.name} --suite {params.suite} 2> {log}"
