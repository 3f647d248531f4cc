"""The configuration of the exact suite: a section a study, whose keys are the keyword arguments of its module's function."""

from typing import Annotated, Literal

from pydantic import Field

from prefdist.config.common import VERSION, Strict

Share = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Octave = Annotated[int, Field(ge=0, le=40)]
Outputs = Annotated[int, Field(ge=2, le=1000)]


class Optima(Strict):
    """Objectives' optima against their closed forms."""

    worlds: int = Field(default=5, gt=0, description="random worlds, seeds 0 … worlds−1")
    contexts: int = Field(default=10, gt=0, description="contexts of a table")
    actions: int = Field(default=10, gt=1, description="actions of a table")
    sequence_contexts: int = Field(default=4, gt=0, description="contexts of an autoregressive world")
    vocabulary: int = Field(default=3, gt=1, description="tokens of an autoregressive world")
    length: int = Field(default=3, gt=0, description="longest response of an autoregressive world")
    gamma: float = Field(default=0.1, gt=0, description="γ of the preferences; equal to the rows' γ")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")


class Estimators(Strict):
    """Gradient estimators against enumeration."""

    worlds: int = Field(default=5, gt=0, description="random worlds, seeds 0 … worlds−1")
    vocabulary: int = Field(default=3, gt=1, description="tokens")
    length: int = Field(default=3, gt=0, description="longest response")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")


class Convergence(Strict):
    """How fast each method learns π* from n pairs, and which do not: ADL's toy world."""

    contexts: int = Field(default=10, gt=0, description="contexts of a table")
    actions: int = Field(default=10, gt=1, le=100, description="actions of a table")
    gamma: float = Field(default=0.5, gt=0, description="γ of the preferences")
    spread: float = Field(default=0.1, gt=0, description="standard deviation of the logits of π* and π₀; pairs come from π₀")
    seeds: int = Field(default=20, gt=1, description="worlds with their pairs, seeds 0 … seeds−1")
    octaves: tuple[Octave, Octave] = Field(default=(5, 20), description="least and largest log₂ of the number of pairs")
    slope_octaves: int = Field(default=5, gt=0, description="last doublings of n over which slopes are fitted")
    betas: list[Weight] = Field(
        default=[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0],
        min_length=1,
        description="β among which is chosen, beside none",
    )
    fixed_betas: list[Weight] = Field(default=[0.1, 1.0], description="of betas: those at which plateaus are reported")
    alphas: list[Weight] = Field(default=[0.5, 1.0], description="SPL's α")
    ridge: float = Field(default=0.001, gt=0, description="of rewards and likelihoods, beside the sum over a context's pairs")
    held_out: float = Field(default=0.25, gt=0, lt=1, description="share of n pairs that choose β")


class Coverage(Strict):
    """What PMLE and reverse KL learn of finite data, over finite classes, against coverage."""

    worlds: int = Field(default=500, gt=1, description="random worlds, each with its π*, ν and Π")
    actions: int = Field(default=8, gt=1, le=100, description="responses of a world")
    directions: int = Field(default=32, ge=4, multiple_of=4, description="random directions of Π's policies from π*")
    octaves: int = Field(default=8, gt=0, description="policies in a direction, each at half the distance of the one before")
    reach: float = Field(default=2.0, gt=0, description="distance of the farthest, standard deviation of ln π/π* in nats")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of π*'s logits")
    far_spread: float = Field(default=2.0, gt=0, description="standard deviation of ν's logits")
    gamma: float = Field(default=0.5, gt=0, description="γ of the preferences")
    gammas: list[Weight] = Field(
        default=[0.125, 0.25, 0.5, 1.0, 2.0], min_length=2, description="γ at the middle of shifts and pairs"
    )
    shifts: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=[0.0, 0.25, 0.5, 0.75, 1.0], min_length=2, description="t of μ ∝ π*^{1−t}·ν^t; 0 among them"
    )
    pairs: list[Annotated[int, Field(gt=0)]] = Field(
        default=[64, 256, 1024, 4096, 16384], min_length=2, description="n: labelled pairs"
    )
    delta: float = Field(default=0.05, gt=0, lt=1, description="δ: share of the worlds that may exceed the bound")
    seed: int = Field(default=0, ge=0, description="of all draws")


class Misspecification(Strict):
    """Preferences that are not those a method assumes, on infinite data."""

    worlds: int = Field(default=200, gt=1, description="random worlds, seeds 0 … worlds−1")
    contexts: int = Field(default=5, gt=0, description="contexts of a table")
    actions: int = Field(default=6, gt=1, le=100, description="actions of a table")
    gamma: float = Field(default=0.5, gt=0, description="γ of the preferences")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")
    knowledge: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=[0.0, 0.9], min_length=1, description="weight of log π* in log π₀"
    )
    position_biases: list[NotNegative] = Field(
        default=[0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0], min_length=2, description="b, nats for the response shown first"
    )
    cycles: list[NotNegative] = Field(
        default=[0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0], min_length=2, description="c, nats, weight of the intransitive part"
    )
    noises: list[Annotated[float, Field(ge=0, lt=0.5)]] = Field(
        default=[0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.45], min_length=2, description="ε, share of labels turned round"
    )
    factors: list[Annotated[float, Field(ge=1)]] = Field(
        default=[1.0, 1.25, 1.5, 2.0, 3.0, 4.0], min_length=2, description="of the assumed γ, both up and down"
    )
    small: float = Field(default=0.01, gt=0, lt=0.25, description="strength at which, and at twice, orders are fitted")
    cyclic_win: float = Field(default=0.9, gt=0.5, lt=1, description="how often each wins in a cycle of three")


class Degeneracy(Strict):
    """Gradient flow on a few separable pairs: what diverges, what settles, and where mass goes."""

    worlds: int = Field(default=50, gt=1, le=1000, description="random worlds")
    responses: int = Field(default=10, ge=3, le=100, description="responses of a world")
    pairs: int = Field(default=3, gt=0, description="different pairs; fewer than half of the responses")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of the logits of π₀")
    betas: list[Weight] = Field(default=[0.1, 1.0], min_length=1, description="DPO's β; SPL has the smallest, and α = 1.5·β")
    margin: float = Field(default=5.0, gt=0, description="IPO's margin 1/(2τ)")
    gammas: list[Weight] = Field(default=[0.1, 1.0, 2.0], min_length=1, description="PMLE's γ")
    kls: list[Weight] = Field(default=[0.005, 0.1, 1.0], min_length=1, description="PMLE's β, beside β = 0")
    times: list[Annotated[float, Field(ge=0, le=1e12)]] = Field(
        default=[0.0, 1.0, 1e2, 1e4, 1e6, 1e8, 1e10], min_length=3, description="t = steps × learning rate; 0 is the first"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class PriorSmoothing(Strict):
    """Reverse KL's prior π₀^a: mass on outputs of low prior and high reward, against γ."""

    worlds: int = Field(default=500, gt=1, description="random worlds; those without a low prior with a high reward drop out")
    outputs: int = Field(default=40, ge=4, le=1000, description="outputs of a world")
    share: float = Field(default=0.25, gt=0, le=0.5, description="of outputs that count as low in prior, as high in reward")
    prior_spreads: list[Weight] = Field(default=[2.0, 10.0], min_length=1, description="standard deviation of log π₀, nats")
    betas: list[NotNegative] = Field(default=[0.0, 0.05, 0.1, 0.2], min_length=1, description="β, units of the reward's s.d.")
    gammas: list[NotNegative] = Field(
        default=[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0], min_length=2, description="γ, entropy coefficient, as β"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class Representation(Strict):
    """Proportional representation: what SPL and DPO learn of a divided population."""

    shares: list[Share] = Field(
        default=[0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95], min_length=1, description="p: who prefers y to y′"
    )
    alphas: list[Weight] = Field(default=[1.0, 0.5, 0.3, 0.1, 0.05], min_length=1, description="SPL's α; DPO's β, too")
    betas: list[Weight] = Field(default=[0.1, 0.01], description="SPL's β, beside β = α; DPO's β, too")
    priors: list[Share] = Field(default=[0.5, 0.2], min_length=1, description="π₀(y)")
    voted_shares: list[Share] = Field(default=[0.55, 0.8], min_length=1, description="p of finite populations")
    voted_alphas: list[Weight] = Field(default=[1.0, 0.1], min_length=1, description="α learned from finite populations")
    voters: list[int] = Field(default=[10, 100, 1000, 10000], min_length=1, description="voters of a finite population")
    seeds: int = Field(default=200, gt=1, description="finite populations, seeds 0 … seeds−1")
    types: list[int] = Field(default=[2, 3, 5, 10, 20], min_length=1, description="K: types of voters, each with its response")
    type_worlds: int = Field(default=200, gt=1, description="populations of K types, shares uniform over the simplex")


class Temperature(Strict):
    """Global against token temperature, and the length of responses under both."""

    vocabulary: int = Field(default=4, gt=1, description="tokens of an autoregressive world, EOS included")
    lengths: list[int] = Field(default=[1, 2, 3, 4, 5], min_length=1, description="longest responses of a world")
    worlds: int = Field(default=200, gt=1, description="random worlds, seeds 0 … worlds−1")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")
    taus: list[Weight] = Field(default=[0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0, 11.0], min_length=1, description="temperatures τ")
    beta: float = Field(default=0.1, gt=0, description="β of DPO and SPL; SPL's α is τ·β")
    toy_vocabulary: int = Field(default=3, gt=1, description="equally likely tokens of the toy language model")
    toy_stop: float = Field(default=0.05, gt=0, lt=1, description="probability that its response ends before a token")
    toy_taus: list[Annotated[float, Field(ge=1)]] = Field(
        default=[1.0, 1.02, 1.04, 1.05, 1.06, 1.08, 1.1, 1.2, 2.0], min_length=1, description="its temperatures τ"
    )
    longest: list[int] = Field(default=[50, 100, 200, 400], min_length=1, description="maximal lengths, in tokens; and none")


class OutputShift(Strict):
    """Mass of the aligned component of a mixture after tuning: Huang's Lemma 1 and Theorem 2."""

    worlds: int = Field(default=50_000, gt=0, description="random worlds a cell, all meeting the hypotheses of Theorem 2")
    outputs: list[Outputs] = Field(
        default=[2, 3, 4, 5, 6, 10, 30, 100], min_length=1, description="numbers of outputs, each a cell, with normal rewards"
    )
    pooled: list[Outputs] = Field(
        default=[3, 4, 5, 6],
        min_length=1,
        description="numbers of outputs taken together: for laws of rewards, identities and conditions; worlds of each",
    )
    rewards: list[Literal["normal", "uniform", "exponential", "integers", "binary"]] = Field(
        default=["normal", "uniform", "exponential", "integers", "binary"], min_length=1, description="laws of rewards"
    )
    betas: list[Weight] = Field(
        default=[0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], min_length=1, description="β of the tilt, in units of r"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class ChosenRejected(Strict):
    """Win rates of tuned models against the reference that the labelled pairs came from."""

    worlds: int = Field(default=5_000, gt=0, description="random worlds of each annotator and number of responses")
    outputs: list[Outputs] = Field(default=[2, 3, 5, 10, 30], min_length=1, description="numbers of responses")
    annotators: list[Literal["bradley_terry", "noisy", "intransitive"]] = Field(
        default=["bradley_terry", "noisy", "intransitive"], min_length=1, description="who labels the pairs"
    )
    betas: list[Weight] = Field(default=[0.05, 0.1, 0.5, 1.0, 2.0], min_length=1, description="β, weight of the cross-entropy")
    taus: list[Annotated[float, Field(gt=1)]] = Field(
        default=[1.2, 1.5, 2.0, 4.0, 11.0], min_length=1, description="SPL's α/β; 1 is measured beside them"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class Unification(Strict):
    """SPL, ADL's reverse KL, RLHF, Huang's lemma and DPO as one tilt of the prior."""

    sizes: list[int] = Field(default=[2, 3, 4, 5, 6, 7, 8], min_length=1, description="responses of a world")
    worlds: int = Field(default=50, gt=1, description="random worlds of each size, seeds 0 … worlds−1")
    maximised: int = Field(default=5, gt=0, description="of these, how many are also maximised numerically")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of logits and rewards")
    weights: tuple[Weight, Weight] = Field(default=(0.1, 2.0), description="range of α, β and γ, log-uniform")


class ExactSuite(Strict):
    """Enumerable worlds: the theory of the four works without sampling noise. A section is a study."""

    kind: Literal["exact"]
    suite: str
    version: str = Field(pattern=VERSION)
    optima: Optima = Optima()
    estimators: Estimators = Estimators()
    convergence: Convergence = Convergence()
    coverage: Coverage = Coverage()
    misspecification: Misspecification = Misspecification()
    degeneracy: Degeneracy = Degeneracy()
    prior_smoothing: PriorSmoothing = PriorSmoothing()
    representation: Representation = Representation()
    temperature: Temperature = Temperature()
    output_shift: OutputShift = OutputShift()
    chosen_rejected: ChosenRejected = ChosenRejected()
    unification: Unification = Unification()

    @property
    def studies(self) -> dict[str, dict[str, object]]:
        """Every study's specification by its name."""
        return self.model_dump(exclude={"kind", "suite", "version"})
