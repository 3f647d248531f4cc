rule train:
    input:
        inputs("train"),
    output:
        directory("artefacts/train/{name}"),
    log:
        "logs/train/{name}.log",
    threads: 1
    params:
        code=code("train"),
        suite=suite("train"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
