rule preferences:
    input:
        inputs("preferences"),
    output:
        directory("artefacts/preferences/{name}"),
    log:
        "logs/preferences/{name}.log",
    threads: 1
    params:
        code=code("preferences"),
        suite=suite("preferences"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule reference:
    input:
        inputs("reference"),
    output:
        directory("artefacts/reference/{name}"),
    log:
        "logs/reference/{name}.log",
    threads: 1
    params:
        code=code("reference"),
        suite=suite("reference"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
