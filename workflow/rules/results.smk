rule results:
    input:
        inputs("results"),
    output:
        update("artefacts/results/{name}/provenance.json"),
        update("artefacts/results/{name}/metrics.parquet"),
        update(report("artefacts/results/{name}/table.csv", caption="../report/table.rst", category="Tables")),
        update(report("artefacts/results/{name}/table.md", caption="../report/table.rst", category="Tables")),
        update(
            report(
                "artefacts/results/{name}/reward_model.csv", caption="../report/reward_model.rst", category="Tables"
            )
        ),
        update(report("artefacts/results/{name}/cost.csv", caption="../report/cost.rst", category="Tables")),
        update(report("artefacts/results/{name}/samples.md", caption="../report/samples.rst", category="Text")),
        update(report("artefacts/results/{name}/data_card.md", caption="../report/data_card.rst", category="Text")),
        update(
            report("artefacts/results/{name}/kl_frontier.svg", caption="../report/kl_frontier.rst", category="Figures")
        ),
        update(
            report(
                "artefacts/results/{name}/learning_curves.svg",
                caption="../report/learning_curves.rst",
                category="Figures",
            )
        ),
        update(report("artefacts/results/{name}/win_rates.svg", caption="../report/win_rates.rst", category="Figures")),
        update(
            report("artefacts/results/{name}/reliability.svg", caption="../report/reliability.rst", category="Figures")
        ),
    log:
        "logs/results/{name}.log",
    threads: 1
    params:
        code=code("results"),
        suite=suite("results"),
    shell:
        "prefdist make artefacts/results/{wildcards.name} --suite {params.suite} 2> {log}"


rule publish:
    input:
        lambda wildcards: f"{PLANS[wildcards.suite].final.path}/provenance.json",
    output:
        "artefacts/published/{suite,[^/]+}/{version,[^/]+}-{digest,[0-9a-f]+}.json",
    log:
        "logs/publish/{suite}-{version}-{digest}.log",
    localrule: True
    shell:
        "prefdist publish {wildcards.suite} 2>&1 | tee {log}"
