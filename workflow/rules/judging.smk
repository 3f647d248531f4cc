rule judge:
    input:
        inputs("judge"),
    output:
        update("artefacts/judge/{name}/provenance.json"),
    log:
        "logs/judge/{name}.log",
    threads: 1
    params:
        code=code("judge"),
        suite=suite("judge"),
    shell:
        "prefdist make artefacts/judge/{wildcards.name} --suite {params.suite} 2> {log}"


rule judge_local:
    input:
        inputs("judge_local"),
    output:
        update("artefacts/judge_local/{name}/provenance.json"),
    log:
        "logs/judge_local/{name}.log",
    threads: 1
    params:
        code=code("judge_local"),
        suite=suite("judge_local"),
    shell:
        "prefdist make artefacts/judge_local/{wildcards.name} --suite {params.suite} 2> {log}"
