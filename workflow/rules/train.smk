rule train:
    input:
        inputs("train"),
    output:
        directory("artefacts/train/{name}"),
    params:
        code=code("train"),
        suite=suite("train"),
    log:
        "logs/train/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
