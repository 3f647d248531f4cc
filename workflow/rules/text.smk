rule text:
    input:
        inputs("text"),
    output:
        directory("artefacts/text/{name}"),
    params:
        code=code("text"),
        suite=suite("text"),
    log:
        "logs/text/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
