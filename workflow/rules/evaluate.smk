rule baselines:
    input:
        inputs("baselines"),
    output:
        directory("artefacts/baselines/{name}"),
    params:
        code=code("baselines"),
        suite=suite("baselines"),
    log:
        "logs/baselines/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule calibrate:
    input:
        inputs("calibrate"),
    output:
        directory("artefacts/calibrate/{name}"),
    params:
        code=code("calibrate"),
        suite=suite("calibrate"),
    log:
        "logs/calibrate/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"


rule evaluate:
    input:
        inputs("evaluate"),
    output:
        directory("artefacts/evaluate/{name}"),
    params:
        code=code("evaluate"),
        suite=suite("evaluate"),
    log:
        "logs/evaluate/{name}.log",
    threads: 1
    shell:
        "prefdist make {output} --suite {params.suite} 2> {log}"
