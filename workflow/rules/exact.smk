# A rule a study. Each has a table and a figure of its own name, and claims.
for _study, _made in PLANS["exact"].final.inputs.items():

    rule:
        name:
            f"exact_{_study}"
        output:
            update(f"artefacts/exact_{_study}/{{name}}/provenance.json"),
            update(
                report(
                    f"artefacts/exact_{_study}/{{name}}/{_study}.csv",
                    caption=f"../report/exact/{_study}.rst",
                    category="Exact worlds",
                )
            ),
            update(
                report(
                    f"artefacts/exact_{_study}/{{name}}/{_study}.svg",
                    caption=f"../report/exact/{_study}.rst",
                    category="Exact worlds",
                )
            ),
        log:
            f"logs/exact_{_study}/{{name}}.log",
        threads: 1
        params:
            code=code(f"exact_{_study}"),
            study=_study,
        shell:
            "prefdist make artefacts/exact_{params.study}/{wildcards.name} --suite exact 2> {log}"


rule exact_results:
    input:
        inputs("exact_results"),
    output:
        update("artefacts/exact_results/{name}/provenance.json"),
        update(
            report(
                "artefacts/exact_results/{name}/claims.csv",
                caption="../report/exact/claims.rst",
                category="Exact worlds",
            )
        ),
    log:
        "logs/exact_results/{name}.log",
    threads: 1
    params:
        code=code("exact_results"),
    shell:
        "prefdist make artefacts/exact_results/{wildcards.name} --suite exact 2> {log}"
