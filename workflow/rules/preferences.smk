rule preferences:
    input:
        inputs("preferences"),
    output:
        directory("artefacts/preferences/{name}"),
    params:
        code=code("preferences"),
        suite=suite("preferences"),
    log:
        "logs/preferences/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule reference:
    input:
        inputs("reference"),
    output:
        directory("artefacts/reference/{name}"),
    params:
        code=code("reference"),
        suite=suite("reference"),
    log:
        "logs/reference/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
