rule dataset:
    input:
        inputs("dataset"),
    output:
        update("artefacts/dataset/{name}/provenance.json"),
    log:
        "logs/dataset/{name}.log",
    threads: 1
    params:
        code=code("dataset"),
        suite=suite("dataset"),
    shell:
        "prefdist make artefacts/dataset/{wildcards.name} --suite {params.suite} 2> {log}"


rule pairs:
    input:
        inputs("pairs"),
    output:
        update("artefacts/pairs/{name}/provenance.json"),
    log:
        "logs/pairs/{name}.log",
    threads: 1
    params:
        code=code("pairs"),
        suite=suite("pairs"),
    shell:
        "prefdist make artefacts/pairs/{wildcards.name} --suite {params.suite} 2> {log}"


rule choices:
    input:
        inputs("choices"),
    output:
        update("artefacts/choices/{name}/provenance.json"),
    log:
        "logs/choices/{name}.log",
    threads: 1
    params:
        code=code("choices"),
        suite=suite("choices"),
    shell:
        "prefdist make artefacts/choices/{wildcards.name} --suite {params.suite} 2> {log}"


rule problems:
    input:
        inputs("problems"),
    output:
        update("artefacts/problems/{name}/provenance.json"),
    log:
        "logs/problems/{name}.log",
    threads: 1
    params:
        code=code("problems"),
        suite=suite("problems"),
    shell:
        "prefdist make artefacts/problems/{wildcards.name} --suite {params.suite} 2> {log}"


rule draws:
    input:
        inputs("draws"),
    output:
        update("artefacts/draws/{name}/provenance.json"),
    log:
        "logs/draws/{name}.log",
    threads: 1
    params:
        code=code("draws"),
        suite=suite("draws"),
    shell:
        "prefdist make artefacts/draws/{wildcards.name} --suite {params.suite} 2> {log}"


rule diversity:
    input:
        inputs("diversity"),
    output:
        update("artefacts/diversity/{name}/provenance.json"),
    log:
        "logs/diversity/{name}.log",
    threads: 1
    params:
        code=code("diversity"),
        suite=suite("diversity"),
    shell:
        "prefdist make artefacts/diversity/{wildcards.name} --suite {params.suite} 2> {log}"


rule shift:
    input:
        inputs("shift"),
    output:
        update("artefacts/shift/{name}/provenance.json"),
    log:
        "logs/shift/{name}.log",
    threads: 1
    params:
        code=code("shift"),
        suite=suite("shift"),
    shell:
        "prefdist make artefacts/shift/{wildcards.name} --suite {params.suite} 2> {log}"


rule repeats:
    input:
        inputs("repeats"),
    output:
        update("artefacts/repeats/{name}/provenance.json"),
    log:
        "logs/repeats/{name}.log",
    threads: 1
    params:
        code=code("repeats"),
        suite=suite("repeats"),
    shell:
        "prefdist make artefacts/repeats/{wildcards.name} --suite {params.suite} 2> {log}"


rule calibration:
    input:
        inputs("calibration"),
    output:
        update("artefacts/calibration/{name}/provenance.json"),
    log:
        "logs/calibration/{name}.log",
    threads: 1
    params:
        code=code("calibration"),
        suite=suite("calibration"),
    shell:
        "prefdist make artefacts/calibration/{wildcards.name} --suite {params.suite} 2> {log}"


rule best_of_n:
    input:
        inputs("best_of_n"),
    output:
        update("artefacts/best_of_n/{name}/provenance.json"),
    log:
        "logs/best_of_n/{name}.log",
    threads: 1
    params:
        code=code("best_of_n"),
        suite=suite("best_of_n"),
    shell:
        "prefdist make artefacts/best_of_n/{wildcards.name} --suite {params.suite} 2> {log}"


rule tax:
    input:
        inputs("tax"),
    output:
        update("artefacts/tax/{name}/provenance.json"),
    log:
        "logs/tax/{name}.log",
    threads: 1
    params:
        code=code("tax"),
        suite=suite("tax"),
    shell:
        "prefdist make artefacts/tax/{wildcards.name} --suite {params.suite} 2> {log}"


rule benchmarks:
    input:
        inputs("benchmarks"),
    output:
        update("artefacts/benchmarks/{name}/provenance.json"),
    log:
        "logs/benchmarks/{name}.log",
    threads: 1
    params:
        code=code("benchmarks"),
        suite=suite("benchmarks"),
    shell:
        "prefdist make artefacts/benchmarks/{wildcards.name} --suite {params.suite} 2> {log}"


rule spl_results:
    input:
        inputs("spl_results"),
    output:
        update("artefacts/spl_results/{name}/provenance.json"),
        update("artefacts/spl_results/{name}/metrics.parquet"),
        update(report("artefacts/spl_results/{name}/table.csv", caption="../report/behaviour.rst", category="Tables")),
    log:
        "logs/spl_results/{name}.log",
    threads: 1
    params:
        code=code("spl_results"),
        suite=suite("spl_results"),
    shell:
        "prefdist make artefacts/spl_results/{wildcards.name} --suite {params.suite} 2> {log}"
