rule prompts:
    input:
        inputs("prompts"),
    output:
        update("artefacts/prompts/{name}/provenance.json"),
    log:
        "logs/prompts/{name}.log",
    threads: 1
    params:
        code=code("prompts"),
        suite=suite("prompts"),
    shell:
        "prefdist make artefacts/prompts/{wildcards.name} --suite {params.suite} 2> {log}"


rule model:
    input:
        inputs("model"),
    output:
        update("artefacts/model/{name}/provenance.json"),
    log:
        "logs/model/{name}.log",
    threads: 1
    params:
        code=code("model"),
        suite=suite("model"),
    shell:
        "prefdist make artefacts/model/{wildcards.name} --suite {params.suite} 2> {log}"


rule responses:
    input:
        inputs("responses"),
    output:
        update("artefacts/responses/{name}/provenance.json"),
    log:
        "logs/responses/{name}.log",
    threads: 1
    params:
        code=code("responses"),
        suite=suite("responses"),
    shell:
        "prefdist make artefacts/responses/{wildcards.name} --suite {params.suite} 2> {log}"


rule scores:
    input:
        inputs("scores"),
    output:
        update("artefacts/scores/{name}/provenance.json"),
    log:
        "logs/scores/{name}.log",
    threads: 1
    params:
        code=code("scores"),
        suite=suite("scores"),
    shell:
        "prefdist make artefacts/scores/{wildcards.name} --suite {params.suite} 2> {log}"


rule questions:
    input:
        inputs("questions"),
    output:
        update("artefacts/questions/{name}/provenance.json"),
    log:
        "logs/questions/{name}.log",
    threads: 1
    params:
        code=code("questions"),
        suite=suite("questions"),
    shell:
        "prefdist make artefacts/questions/{wildcards.name} --suite {params.suite} 2> {log}"
