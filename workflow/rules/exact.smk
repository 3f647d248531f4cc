rule exact_worlds:
    input:
        rows=sorted(str(file) for file in Path("workflow/objectives").glob("*.yaml")),
    output:
        update("artefacts/exact/{name}/provenance.json"),
        update(report("artefacts/exact/{name}/optima.csv", caption="../report/optima.rst", category="Exact worlds")),
        update(report("artefacts/exact/{name}/optima.svg", caption="../report/optima.rst", category="Exact worlds")),
        update(
            report(
                "artefacts/exact/{name}/estimators.csv", caption="../report/estimators.rst", category="Exact worlds"
            )
        ),
        update(
            report(
                "artefacts/exact/{name}/estimators.svg", caption="../report/estimators.rst", category="Exact worlds"
            )
        ),
    log:
        "logs/exact/{name}.log",
    threads: 1
    params:
        code=code("exact"),
    shell:
        "prefdist make artefacts/exact/{wildcards.name} --suite exact 2> {log}"
