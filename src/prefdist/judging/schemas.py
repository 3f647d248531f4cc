"""The tables that a judged artefact holds: what was compared, and what was said of it."""

import pyarrow as pa

COMPARISONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("baseline", pa.string()),
        ("reference", pa.string()),
        ("second_prompt", pa.string()),
        ("second_answer", pa.string()),
        ("second_reference", pa.string()),
    ]
)
"""A row is an answer and what it is judged beside: a baseline's answer, or (MT-Bench) a second turn; null where there is "
"none."""

JUDGEMENTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("order", pa.int32()),  # 0: the baseline's answer is shown first; 1: the other one is
        ("turn", pa.int32()),  # 1, or of MT-Bench 2
        ("preference", pa.float64()),  # AlpacaEval's: 1 = the baseline wins, 2 = the answer wins
        ("weight", pa.float64()),  # battles that the verdict counts as (Arena-Hard: 3 for >>)
        ("rating", pa.float64()),  # MT-Bench: 1 to 10
        ("reply", pa.string()),
        ("top_logprobs", pa.string()),  # JSON: token -> log-probability (nats) of the reply's first token
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("length_answer", pa.int32()),
        ("length_baseline", pa.int32()),
    ]
)
"""A row is one judgement. preference and rating are null where the protocol has none, and where the reply could not be read;
reply and what follows are null for judges that are no endpoint. Lengths in characters, as AlpacaEval counts them."""
