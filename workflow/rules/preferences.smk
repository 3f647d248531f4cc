rule preferences:
    input:
        inputs("preferences"),
    output:
        update("artefacts/preferences/{name}/provenance.json"),
    log:
        "logs/preferences/{name}.log",
    threads: 1
    params:
        code=code("preferences"),
        suite=suite("preferences"),
    shell:
        "prefdist make artefacts/preferences/{wildcards.name} --suite {params.suite} 2> {log}"


rule reference:
    input:
        inputs("reference"),
    output:
        update("artefacts/reference/{name}/provenance.json"),
    log:
        "logs/reference/{name}.log",
    threads: 1
    params:
        code=code("reference"),
        suite=suite("reference"),
    shell:
        "prefdist make artefacts/reference/{wildcards.name} --suite {params.suite} 2> {log}"
