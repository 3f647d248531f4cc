rule prompts:
    input:
        inputs("prompts"),
    output:
        directory("artefacts/prompts/{name}"),
    log:
        "logs/prompts/{name}.log",
    threads: 1
    params:
        code=code("prompts"),
        suite=suite("prompts"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule model:
    input:
        inputs("model"),
    output:
        directory("artefacts/model/{name}"),
    log:
        "logs/model/{name}.log",
    threads: 1
    params:
        code=code("model"),
        suite=suite("model"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule responses:
    input:
        inputs("responses"),
    output:
        directory("artefacts/responses/{name}"),
    log:
        "logs/responses/{name}.log",
    threads: 1
    params:
        code=code("responses"),
        suite=suite("responses"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule scores:
    input:
        inputs("scores"),
    output:
        directory("artefacts/scores/{name}"),
    log:
        "logs/scores/{name}.log",
    threads: 1
    params:
        code=code("scores"),
        suite=suite("scores"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule questions:
    input:
        inputs("questions"),
    output:
        directory("artefacts/questions/{name}"),
    log:
        "logs/questions/{name}.log",
    threads: 1
    params:
        code=code("questions"),
        suite=suite("questions"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
