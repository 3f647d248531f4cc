"""The rows of the objective table, as they are written in workflow/objectives/*.yaml: one pydantic model a family.

A coefficient is a number or the name of one of the row's parameters, so that a suite can override `gamma` and a reader
sees the formula. Left out: what the rows mean (preference.py, likelihood.py, token_distillation.py, policy_gradient.py).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

Coefficient = float | str


class Strict(BaseModel):
    """Unknown keys are refused; a row never changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Score(Strict):
    """s(y) = a·ℓ(y) − b·ℓ_against(y); `of: reward` takes the output of a reward head in place of ℓ."""

    of: Literal["policy", "reward"] = "policy"
    a: Coefficient = 1.0
    b: Coefficient = 0.0
    against: Literal["none", "reference", "old"] = Field("none", description="reference = π₀, old = the policy that sampled")
    length: Literal["sum", "mean"] = Field("sum", description="ℓ summed over the tokens including EOS, or their mean")

    @model_validator(mode="after")
    def _b_needs_a_model(self) -> "Score":
        if self.against == "none" and self.b != 0.0:
            raise ValueError("b needs a model that it is taken against: reference or old")
        return self


class LabelTarget(Strict):
    """The observed order: responses stand best first. The best must win by `margin`."""

    of: Literal["label"]
    margin: Coefficient = 0.0


class ScoresTarget(Strict):
    """What a reward model implies: target score = scale·(r̂ − kl·(ℓ_old − ℓ_reference)), detached."""

    of: Literal["scores"]
    scale: Coefficient = 1.0
    kl: Coefficient = 0.0


class ConstantTarget(Strict):
    """A fixed difference of scores between the best and the other (IPO's 1/(2τ))."""

    of: Literal["constant"]
    value: Coefficient


Target = Annotated[LabelTarget | ScoresTarget | ConstantTarget, Field(discriminator="of")]


class Regulariser(Strict):
    """coefficient·KL(π‖π₀) on fresh samples of the policy, by the score-function gradient."""

    kl: Coefficient


class Row(Strict):
    """What every row has."""

    title: str
    source: str = Field(description="paper and equation")
    parameters: dict[str, float] = Field(default_factory=dict)


class PreferenceRow(Row):
    """Make the preference distribution that the policy implies match a target, under a divergence."""

    family: Literal["preference"]
    score: Score
    model: Literal["bradley_terry", "plackett_luce", "first_choice"] = Field(
        "bradley_terry", description="law of a pair, of a ranking of n, or of the best of n"
    )
    target: Target
    divergence: Literal["nll", "kl", "jsd", "ag", "squared"]
    regulariser: Regulariser | None = None
    responses: Literal["dataset", "policy", "scored"] = Field(
        description="dataset: labelled; policy: fresh samples scored by a reward model; scored: lists scored by a teacher"
    )

    @model_validator(mode="after")
    def _combinations(self) -> "PreferenceRow":
        allowed = {"label": {"nll"}, "scores": {"kl", "jsd", "ag", "squared"}, "constant": {"squared"}}
        if self.divergence not in allowed[self.target.of]:
            raise ValueError(f"divergence {self.divergence} has no meaning for target {self.target.of}")
        if self.divergence == "ag" and self.model != "plackett_luce":
            raise ValueError("divergence ag is PAD's, of rankings: give model: plackett_luce")
        if self.responses == "dataset" and self.target.of == "scores":
            raise ValueError("target scores needs responses: policy or scored")
        if self.responses != "policy" and (self.score.against == "old" or getattr(self.target, "kl", 0.0) != 0.0):
            raise ValueError("against old, and kl in the target, need responses: policy")
        return self


class LikelihoodRow(Row):
    """Maximum likelihood of the first response (SFT): −ℓ."""

    family: Literal["likelihood"]
    length: Literal["sum", "mean"] = "sum"
    responses: Literal["dataset"] = "dataset"


class TokenDistillationRow(Row):
    """Match a teacher's law of the next token along the first response: Σ_t KL_t, or its mean over tokens."""

    family: Literal["token_distillation"]
    direction: Literal["forward", "reverse"] = Field(description="forward: KL(teacher‖student); reverse: KL(student‖teacher)")
    length: Literal["sum", "mean"] = "sum"
    responses: Literal["dataset"] = "dataset"


class PolicyGradientRow(Row):
    """Maximise E_π[r̂] + entropy·H(π) − kl·KL(π‖π₀), entropy and KL of whole sequences."""

    family: Literal["policy_gradient"]
    algorithm: Literal["rloo", "ppo"]
    kl: Coefficient
    entropy: Coefficient
    clip: float = Field(0.2, gt=0, description="PPO: bound on the ratio's distance from 1")
    value_clip: float = Field(0.2, gt=0, description="PPO: bound on a value's move from the old one")
    value_coefficient: float = Field(0.1, ge=0, description="PPO: weight of the critic's loss")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="PPO: λ of generalised advantage estimation, discount 1")
    responses: Literal["policy"] = "policy"


AnyRow = PreferenceRow | LikelihoodRow | TokenDistillationRow | PolicyGradientRow
ObjectiveRow = Annotated[AnyRow, Field(discriminator="family")]
_adapter: TypeAdapter[AnyRow] = TypeAdapter(ObjectiveRow)


def parse(mapping: dict[str, Any]) -> AnyRow:
    """A checked row with every coefficient a number and no parameter left. ValueError (pydantic's) names the key."""
    row = _adapter.validate_python(mapping)
    used: set[str] = set()
    resolved = _resolve(row.model_dump(), row.parameters, used)
    unused = set(row.parameters) - used
    if unused:
        raise ValueError(f"parameters {sorted(unused)} are used nowhere in the row; it uses {sorted(used)}")
    return _adapter.validate_python({**resolved, "parameters": {}})


_COEFFICIENTS = {"a", "b", "margin", "scale", "kl", "value", "entropy"}


def _resolve(node: Any, parameters: dict[str, float], used: set[str]) -> Any:
    if not isinstance(node, dict):
        return node
    resolved = {}
    for key, value in node.items():
        if key == "parameters":
            resolved[key] = value
        elif key in _COEFFICIENTS and isinstance(value, str):
            if value not in parameters:
                raise ValueError(f"{key}: no parameter is named {value!r}; the row has {sorted(parameters)}")
            used.add(value)
            resolved[key] = parameters[value]
        else:
            resolved[key] = _resolve(value, parameters, used)
    return resolved
