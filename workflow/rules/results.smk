rule results:
    input:
        inputs("results"),
    output:
        "results/{suite}/{version}/provenance.json",
        "results/{suite}/{version}/metrics.parquet",
        report("results/{suite}/{version}/table.csv", caption="../report/table.rst", category="Tables"),
        report("results/{suite}/{version}/table.md", caption="../report/table.rst", category="Tables"),
        report("results/{suite}/{version}/reward_model.csv", caption="../report/reward_model.rst", category="Tables"),
        report("results/{suite}/{version}/cost.csv", caption="../report/cost.rst", category="Tables"),
        report("results/{suite}/{version}/samples.md", caption="../report/samples.rst", category="Text"),
        report("results/{suite}/{version}/data_card.md", caption="../report/data_card.rst", category="Text"),
        report("results/{suite}/{version}/kl_frontier.svg", caption="../report/kl_frontier.rst", category="Figures"),
        report(
            "results/{suite}/{version}/learning_curves.svg",
            caption="../report/learning_curves.rst",
            category="Figures",
        ),
        report("results/{suite}/{version}/win_rates.svg", caption="../report/win_rates.rst", category="Figures"),
        report("results/{suite}/{version}/reliability.svg", caption="../report/reliability.rst", category="Figures"),
    log:
        "logs/results/{suite}-{version}.log",
    wildcard_constraints:
        suite="(?!exact)[^/]+",
    threads: 1
    params:
        code=code("results"),
        suite=suite("results"),
    shell:
        "prefdist make results/{wildcards.suite}/{wildcards.version} --suite {params.suite} 2> {log}"
