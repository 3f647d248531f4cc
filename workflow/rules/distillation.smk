rule held_out:
    input:
        inputs("held_out"),
    output:
        update("artefacts/held_out/{name}/provenance.json"),
    log:
        "logs/held_out/{name}.log",
    threads: 1
    params:
        code=code("held_out"),
        suite=suite("held_out"),
    shell:
        "prefdist make artefacts/held_out/{wildcards.name} --suite {params.suite} 2> {log}"


rule teacher:
    input:
        inputs("teacher"),
    output:
        update("artefacts/teacher/{name}/provenance.json"),
    log:
        "logs/teacher/{name}.log",
    threads: 1
    params:
        code=code("teacher"),
        suite=suite("teacher"),
    shell:
        "prefdist make artefacts/teacher/{wildcards.name} --suite {params.suite} 2> {log}"


rule student:
    input:
        inputs("student"),
    output:
        update("artefacts/student/{name}/provenance.json"),
    log:
        "logs/student/{name}.log",
    threads: 1
    params:
        code=code("student"),
        suite=suite("student"),
    shell:
        "prefdist make artefacts/student/{wildcards.name} --suite {params.suite} 2> {log}"


rule ablation:
    input:
        inputs("ablation"),
    output:
        update("artefacts/ablation/{name}/provenance.json"),
        update(report("artefacts/ablation/{name}/table.csv", caption="../report/ablation.rst", category="Ablations")),
        update(report("artefacts/ablation/{name}/figure.svg", caption="../report/ablation.rst", category="Ablations")),
    log:
        "logs/ablation/{name}.log",
    threads: 1
    params:
        code=code("ablation"),
        suite=suite("ablation"),
    shell:
        "prefdist make artefacts/ablation/{wildcards.name} --suite {params.suite} 2> {log}"


rule pad_results:
    input:
        inputs("pad_results"),
    output:
        update("artefacts/pad_results/{name}/provenance.json"),
        update("artefacts/pad_results/{name}/metrics.parquet"),
        update(report("artefacts/pad_results/{name}/table.csv", caption="../report/students.rst", category="Tables")),
        update(
            report(
                "artefacts/pad_results/{name}/cost.csv", caption="../report/distillation_cost.rst", category="Tables"
            )
        ),
        update(
            report("artefacts/pad_results/{name}/overview.svg", caption="../report/students.rst", category="Figures")
        ),
    log:
        "logs/pad_results/{name}.log",
    threads: 1
    params:
        code=code("pad_results"),
        suite=suite("pad_results"),
    shell:
        "prefdist make artefacts/pad_results/{wildcards.name} --suite {params.suite} 2> {log}"


rule publish_ablation:
    input:
        lambda wildcards: f"{ABLATIONS[wildcards.suite, wildcards.ablation].final.path}/provenance.json",
    output:
        "artefacts/published/{suite,[^/]+}/{version,[^/]+}-ablations/{ablation,[^/]+}-{digest,[0-9a-f]+}.json",
    log:
        "logs/publish/{suite}-{version}-{ablation}-{digest}.log",
    localrule: True
    shell:
        "prefdist publish {wildcards.suite} --ablation {wildcards.ablation} 2>&1 | tee {log}"


for _suite, _ablation in ABLATIONS:

    rule:
        name:
            f"{_suite}_{_ablation}"
        input:
            str(ABLATIONS[_suite, _ablation].published),
        localrule: True
