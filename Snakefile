"""Every experiment of prefdist, suite by suite: `snakemake testbed`, `snakemake exact`. Run `snakemake -n` for a plan."""

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"  # suites checked, artefacts planned


report: "workflow/report/workflow.rst"


container: "containers/train.sif"  # used with --sdm apptainer only; containers/README.md says how to build it


for _suite in SUITES:  # a target for each file of workflow/suites; `testbed` is what `snakemake` alone makes

    rule:
        name:
            _suite
        default_target: _suite == "testbed"
        input:
            finals(_suite),
        localrule: True


include: "workflow/rules/text.smk"  # documented functions or word problems, tokenizer, data card
include: "workflow/rules/train.smk"  # π*, π₀, reward models and every method: one loop
include: "workflow/rules/preferences.smk"  # pairs from π₀ labelled by π*; their log-probabilities under π₀
include: "workflow/rules/evaluate.smk"  # baselines, reward-model calibration, policies against the known target
include: "workflow/rules/results.smk"  # tables, figures, manifest
include: "workflow/rules/teacher.smk"  # a student's responses, a teacher's scores and answers; models and prompts of the hub
include: "workflow/rules/distillation.smk"  # students against their teacher; one target an ablation: pad_testbed_alpha, ...
include: "workflow/rules/behaviour.smk"  # samples of aligned models and what is measured of them; datasets of pairs and questions
include: "workflow/rules/judging.smk"  # judges of answers: endpoints; reward models and known preferences
include: "workflow/rules/alignment.smk"  # ADL at the paper's scale: what its policies' answers are worth; one target an ablation
include: "workflow/rules/exact.smk"  # enumerable worlds: optima and gradient estimators
include: "workflow/rules/exports.smk"  # artefacts alone, for DVC: ablation_pad_testbed_alpha, data_testbed, ...
