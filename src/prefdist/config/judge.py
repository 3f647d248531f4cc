"""What a suite may say of a judge: who, by which protocol, at which price. Left out: what is judged (the plan's inputs)."""

from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from prefdist.config.common import Strict

ProtocolName = Literal["tldr", "alpaca_eval", "mt_bench", "arena_hard"]
PROTOCOL_NAMES = get_args(ProtocolName)


class Prices(Strict):
    """Of a paid endpoint, in one currency."""

    input: float = Field(ge=0, description="of a million prompt tokens")
    output: float = Field(ge=0, description="of a million tokens of the reply")
    ceiling: float = Field(ge=0, description="of all replies of the artefact; no request is sent that could pass it")


class EndpointJudge(Strict):
    """A model behind OpenAI's chat completions format, a company's or a local server's (vLLM)."""

    kind: Literal["endpoint"]
    base_url: str = Field("https://api.openai.com/v1", description="what /chat/completions is appended to")
    model: str = Field(min_length=1, description="as the endpoint calls it; a dated name, where it has one")
    key_variable: str | None = Field(
        "OPENAI_API_KEY", pattern=r"^[A-Z_][A-Z0-9_]*$", description="environment variable that holds the key; null: no key"
    )
    prices: Prices | None = Field(None, description="needed with a key")
    temperature: float | None = Field(None, ge=0, description="default: the protocol's")
    max_tokens: int | None = Field(None, gt=0, description="of a reply; default: the protocol's")
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the endpoint calls it; OpenAI's reasoning models know the second only"
    )
    timeout: float = Field(120.0, gt=0, description="seconds until a reply must be whole")
    attempts: int = Field(6, gt=0, description="at one request, while the endpoint is busy, broken or out of reach")
    patience: float = Field(300.0, gt=0, description="seconds that are waited between two attempts at most")
    requests_per_minute: float | None = Field(None, gt=0, description="default: no limit")
    concurrency: int = Field(8, gt=0, description="requests under way at a time")

    @field_validator("base_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{url} is not the address of an endpoint; it reads like https://api.openai.com/v1")
        if "@" in parts.netloc:
            raise ValueError("the address holds a user or password; put the key into an environment variable")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _priced(self) -> "EndpointJudge":
        if self.key_variable is not None and self.prices is None:
            raise ValueError("prices: an endpoint with a key costs money; give prices with a ceiling, or key_variable: null")
        return self


class RewardModelJudge(Strict):
    """A local reward model: P(answer wins) = σ(r̂(answer) − r̂(baseline))."""

    kind: Literal["reward_model"]
    dtype: Literal["float32", "bfloat16"] = "float32"


class KnownJudge(Strict):
    """The known preference of a testbed: P(a ≻ b) = σ(γ·(log π*(a) − log π*(b))), ADL Eq. 2."""

    kind: Literal["known"]
    gamma: float = Field(gt=0)


AnyJudge = Annotated[EndpointJudge | RewardModelJudge | KnownJudge, Field(discriminator="kind")]


class Judging(Strict):
    """Who judges answers, and how."""

    judge: AnyJudge
    protocol: ProtocolName | None = Field(None, description="of an endpoint: what is asked and how replies are read")
    orders: Literal["both", "drawn"] = Field(
        "both", description="both: every pair is shown in both orders; drawn: in one, as AlpacaEval does"
    )
    order_seed: int = Field(0, description="of drawn orders")
    samples: int | None = Field(None, gt=0, description="answers a prompt that are judged, the first ones; default: all")

    @model_validator(mode="after")
    def _consistent(self) -> "Judging":
        if (self.protocol is None) == isinstance(self.judge, EndpointJudge):
            raise ValueError(f"protocol: an endpoint needs one of {', '.join(PROTOCOL_NAMES)}; other judges have none")
        return self
