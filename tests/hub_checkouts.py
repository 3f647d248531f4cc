"""A checkout whose artefacts tests push to a hub: real folders, real provenance, models that were never trained."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import conftest
import torch

from prefdist import artefacts
from prefdist.config.testbed import Suite
from prefdist.models import add_lora, load_policy, new_policy, save
from prefdist.plan import Artefact, plan
from prefdist.tokens import TextCodec

LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


class Checkout:
    """A checkout with the tiny suite, in which a text, π₀, pairs and a policy with an adapter are made, untrained."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        suite = conftest._suite(root)
        assert isinstance(suite, Suite)
        self.architecture = suite.architecture
        made = plan(suite, root)
        named = {a.stage: a for a in made.artefacts.values()} | {a.name: a for a in made.of_stage("train")}
        self.text, self.prior, self.target = named["text"], named["prior"], named["target"]
        self.pairs, self.adapted = named["preferences"], named["dpo_lora-seed0"]

    def make(self, artefact: Artefact, run: Callable[[Path], None]) -> None:
        """As the command `make` does, but for what the stage would run."""
        identity = {"stage": artefact.stage, "name": artefact.name, "digest": artefact.digest, "code": artefact.code_digest}
        there = {role: source.path for role, source in artefact.inputs.items()}
        here = os.getcwd()
        os.chdir(self.root)
        try:
            inputs = {role: path for role, path in there.items() if path.is_dir()}
            artefacts.make(artefact.path, identity={**identity, "spec": artefact.spec}, inputs=inputs, run=run)
        finally:
            os.chdir(here)

    def fill(self) -> None:
        self.make(self.text, conftest._write_text)
        codec = TextCodec(self.root / self.text.path / "tokenizer")
        for seed, artefact in enumerate((self.prior, self.target)):
            self.make(artefact, lambda out, seed=seed: save(new_policy(self.architecture, codec, seed), out, codec))
        self.make(self.pairs, lambda out: shutil.copy(self.root / self.text.path / "prompts.parquet", out / "pairs.parquet"))

        def adapt(out: Path) -> None:
            model = add_lora(load_policy(self.root / self.prior.path), LORA, seed=0)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.normal_()
            save(model, out, codec)

        for role in ("reference", "baselines"):  # of other stages than are pushed here
            source = self.adapted.inputs.get(role)
            if source is not None:
                self.make(source, lambda out: (out / "rows.csv").write_text("a\n1\n"))
        self.make(self.adapted, adapt)
