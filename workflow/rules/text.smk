rule text:
    input:
        inputs("text"),
    output:
        update("artefacts/text/{name}/provenance.json"),
    log:
        "logs/text/{name}.log",
    threads: 1
    params:
        code=code("text"),
        suite=suite("text"),
    shell:
        "prefdist make artefacts/text/{wildcards.name} --suite {params.suite} 2> {log}"
