rule train:
    input:
        inputs("train"),
    output:
        update("artefacts/train/{name}/provenance.json"),
    log:
        "logs/train/{name}.log",
    threads: 1
    params:
        code=code("train"),
        suite=suite("train"),
    shell:
        "prefdist make artefacts/train/{wildcards.name} --suite {params.suite} 2> {log}"
