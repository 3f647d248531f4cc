"""The image `sample`, really built with a vLLM for CPUs: its log-probabilities are those of transformers."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from services import images
from transformers import LlamaConfig, LlamaForCausalLM

from prefdist import containers

pytestmark = pytest.mark.sample

PROMPTS = [[1, 5, 9, 33, 7], [1, 90, 4]]
TOKENS = 12
SAMPLES = 4
# With a switched-off compiler and one process, since there is nothing to be gained on a model of this size.
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "TORCH_COMPILE_DISABLE": "1",
}
PROGRAM = f"""
import json
from vllm import LLM, SamplingParams
engine = LLM(
    "model", dtype="float32", max_model_len=64, enforce_eager=True, enable_prefix_caching=False, skip_tokenizer_init=True
)
wanted = SamplingParams(n={SAMPLES}, max_tokens={TOKENS}, logprobs=0, seed=0, detokenize=False, ignore_eos=True)
answers = engine.generate([{{"prompt_token_ids": prompt}} for prompt in {PROMPTS}], wanted)
logps = lambda sample: [at[token].logprob for token, at in zip(sample.token_ids, sample.logprobs)]
found = [[[list(sample.token_ids), logps(sample)] for sample in answer.outputs] for answer in answers]
json.dump(found, open("samples.json", "w"))
"""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    with images.skip_without("Apptainer"):
        return images.environment()


@pytest.fixture(scope="module")
def image(environment: dict[str, str]) -> Path:
    with images.skip_without("base image"):
        return images.built("sample-cpu", environment)


def test_vllm_samples_with_the_log_probabilities_of_transformers(
    image: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=100, num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.5, **sizes)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "model")
    settings = [part for name, value in SETTINGS.items() for part in ("--env", f"{name}={value}")]
    inside = ["apptainer", "exec", "--nv", "--no-home", *settings, "--bind", str(tmp_path), "--pwd", str(tmp_path), str(image)]
    # Its processes meet over the loopback device; there is no other.
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    command = [*alone, *inside, "python", "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sampled = json.loads((tmp_path / "samples.json").read_text())
    assert [len(each) for each in sampled] == [SAMPLES] * len(PROMPTS)
    responses = {tuple(tokens) for each in sampled for tokens, _ in each}
    assert len(responses) == SAMPLES * len(PROMPTS), "samples are all different: they were drawn, not decoded greedily"
    for prompt, each in zip(PROMPTS, sampled, strict=True):
        for tokens, logps in each:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            expected = logits.double().log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]
            torch.testing.assert_close(torch.tensor(logps, dtype=torch.float64), expected, rtol=0, atol=1e-4)


def test_it_names_itself(image: Path, environment: dict[str, str], tmp_path: Path) -> None:
    command = ["apptainer", "exec", "--no-home", "--pwd", "/tmp", str(image), "printenv", containers.VARIABLE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == f"sample-cpu@{containers.identity(images.ROOT, 'sample-cpu')}"
