rule text:
    input:
        inputs("text"),
    output:
        directory("artefacts/text/{name}"),
    log:
        "logs/text/{name}.log",
    threads: 1
    params:
        code=code("text"),
        suite=suite("text"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
