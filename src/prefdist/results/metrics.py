"""How each metric is shown in the tables, and which ones the terminal has room for."""

from collections.abc import Callable, Sequence

from prefdist.results import metrics_behaviour
from prefdist.results.judged import judged_specs
from prefdist.results.tables import Cell, MetricSpec, present

POLICY = (
    MetricSpec("forward_kl", "KL(π*‖π̂)", "nats", "lower"),
    MetricSpec("reverse_kl", "KL(π̂‖π*)", "nats", "lower"),
    MetricSpec("kl_to_prior", "KL(π̂‖π₀)", "nats"),
    MetricSpec("win_rate_prior", "win rate against π₀", "%", "higher", scale=100, decimals=1),
    MetricSpec("win_rate_reference", "win rate against references", "%", "higher", scale=100, decimals=1),
    MetricSpec("reward", "learnt reward r̂ above π₀'s", "", "higher"),
    MetricSpec("entropy", "entropy H(π̂)", "nats"),
    MetricSpec("length", "length", "tokens", decimals=1),
    MetricSpec("unfinished", "no EOS", "%", scale=100, decimals=1),
    MetricSpec("distinct_2", "distinct bigrams", "%", scale=100, decimals=1),
)
REWARD_MODEL = (
    MetricSpec("accuracy", "accuracy on labels", "%", "higher", scale=100, decimals=1),
    MetricSpec("accuracy_known", "accuracy on the more probable", "%", "higher", scale=100, decimals=1),
    MetricSpec("kl_known", "KL(known‖model)", "nats", "lower", decimals=3),
    MetricSpec("brier", "Brier score on labels", "", "lower", decimals=3),
)
STUDENT = (
    MetricSpec("win_rate_start", "win rate against its start", "%", "higher", scale=100, decimals=1),
    MetricSpec("win_rate_teacher", "win rate against the teacher", "%", "higher", scale=100, decimals=1),
    MetricSpec("kendall_tau", "Kendall τ to the teacher", "", "higher"),
    MetricSpec("jsd_teacher", "JSD(teacher, student)", "nats", "lower", decimals=3),
    MetricSpec("agrees_known", "agrees with the known preference", "%", "higher", scale=100, decimals=1),
    MetricSpec("above_teacher", "right where the teacher is clearly wrong", "%", "higher", scale=100, decimals=1),
    MetricSpec("length", "length", "bytes", decimals=1),
    MetricSpec("longer_than_start", "longer than its start", "%", scale=100, decimals=1),
    MetricSpec("prefers_longer", "prefers the longer", "%", scale=100, decimals=1),
    MetricSpec("unfinished", "no EOS", "%", scale=100, decimals=1),
    MetricSpec("distinct_2", "distinct bigrams", "%", scale=100, decimals=1),
)
"""Of students of preference distillation; those against the known preferences only where there are any."""
TEACHER = (
    MetricSpec("accuracy_known", "prefers the more probable", "%", "higher", scale=100, decimals=1),
    MetricSpec("kl_known", "KL(known‖teacher)", "nats", "lower", decimals=3),
    MetricSpec("brier", "Brier score on labels", "", "lower", decimals=3),
    MetricSpec("entropy", "entropy of its rankings / ln n!", decimals=3),
)
ANSWERS = (MetricSpec("right", "picks the right reference", "%", "higher", scale=100, decimals=1),)
_NO_ROOM = {"reward", "unfinished", "distinct_2", "entropy"}
Cells = Sequence[Cell]
EVERY: dict[str, Callable[[Cells], list[MetricSpec]]] = {
    "testbed": lambda cells: present(POLICY, cells),
    "pad": lambda cells: present(STUDENT, cells) + judged_specs(cells),
    "spl": lambda cells: metrics_behaviour.specs(cell["metric"] for cell in cells),
}
"""Kind of suite -> the metrics that its table has."""
TERMINAL: dict[str, Callable[[Cells], list[MetricSpec]]] = {
    "testbed": lambda cells: present([spec for spec in POLICY if spec.key not in _NO_ROOM], cells),
    "pad": lambda cells: present([*STUDENT[:5], *(spec for spec in STUDENT if spec.key == "length")], cells),
    "spl": lambda cells: metrics_behaviour.terminal_metrics(cell["metric"] for cell in cells),
}
"""Kind of suite -> what of it the terminal has room for."""
