rule exact_worlds:
    input:
        rows=sorted(str(file) for file in Path("workflow/objectives").glob("*.yaml")),
    output:
        "results/exact/{version}/provenance.json",
        report("results/exact/{version}/optima.csv", caption="../report/optima.rst", category="Exact worlds"),
        report("results/exact/{version}/optima.svg", caption="../report/optima.rst", category="Exact worlds"),
        report("results/exact/{version}/estimators.csv", caption="../report/estimators.rst", category="Exact worlds"),
        report("results/exact/{version}/estimators.svg", caption="../report/estimators.rst", category="Exact worlds"),
    log:
        "logs/exact/{version}.log",
    threads: 1
    params:
        code=lambda wildcards: ARTEFACTS[f"results/exact/{wildcards.version}"].code_digest,
    shell:
        "prefdist make results/exact/{wildcards.version} --suite exact 2> {log}"
