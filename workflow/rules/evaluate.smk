rule baselines:
    input:
        inputs("baselines"),
    output:
        directory("artefacts/baselines/{name}"),
    log:
        "logs/baselines/{name}.log",
    threads: 1
    params:
        code=code("baselines"),
        suite=suite("baselines"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule calibrate:
    input:
        inputs("calibrate"),
    output:
        directory("artefacts/calibrate/{name}"),
    log:
        "logs/calibrate/{name}.log",
    threads: 1
    params:
        code=code("calibrate"),
        suite=suite("calibrate"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule evaluate:
    input:
        inputs("evaluate"),
    output:
        directory("artefacts/evaluate/{name}"),
    log:
        "logs/evaluate/{name}.log",
    threads: 1
    params:
        code=code("evaluate"),
        suite=suite("evaluate"),
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
