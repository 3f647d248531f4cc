rule baselines:
    input:
        inputs("baselines"),
    output:
        update("artefacts/baselines/{name}/provenance.json"),
    log:
        "logs/baselines/{name}.log",
    threads: 1
    params:
        code=code("baselines"),
        suite=suite("baselines"),
    shell:
        "prefdist make artefacts/baselines/{wildcards.name} --suite {params.suite} 2> {log}"


rule calibrate:
    input:
        inputs("calibrate"),
    output:
        update("artefacts/calibrate/{name}/provenance.json"),
    log:
        "logs/calibrate/{name}.log",
    threads: 1
    params:
        code=code("calibrate"),
        suite=suite("calibrate"),
    shell:
        "prefdist make artefacts/calibrate/{wildcards.name} --suite {params.suite} 2> {log}"


rule evaluate:
    input:
        inputs("evaluate"),
    output:
        update("artefacts/evaluate/{name}/provenance.json"),
    log:
        "logs/evaluate/{name}.log",
    threads: 1
    params:
        code=code("evaluate"),
        suite=suite("evaluate"),
    shell:
        "prefdist make artefacts/evaluate/{wildcards.name} --suite {params.suite} 2> {log}"
