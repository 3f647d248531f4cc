"""Token-level distillation: divergences of two models' laws of every next token, against transformers' own logits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plain_logps, read_log
from safetensors.torch import load_file
from teacher_inputs import ARCHITECTURE, PROMPTS, TEXTS, write_teacher
from test_training_resume import Stopped, same_training, stop_at
from torch import Tensor

from prefdist import logprobs
from prefdist.errors import UserError
from prefdist.logprobs import packed_token_kl
from prefdist.models import load_policy, new_policy, save
from prefdist.objectives.registry import load, read_row
from prefdist.tokens import Packed, TextCodec
from prefdist.training import checkpoint, stage
from prefdist.training.batch import Batch
from prefdist.training.learner import Learner
from prefdist.training.terms import objective_term

NAMES = list(PROMPTS)[:3]
MODELS = {"llama": ARCHITECTURE, "soft-capped": ARCHITECTURE | {"model_type": "gemma2", "head_dim": 8, "sliding_window": 64}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller than its teacher, with the teacher's tokenizer."""
    folder, codec = tmp_path_factory.mktemp("student"), TextCodec(teacher)
    save(new_policy(ARCHITECTURE | {"hidden_size": 8, "num_hidden_layers": 1}, codec, 5), folder, codec)
    return folder


def examples(codec: TextCodec, n: int = 2) -> Batch:
    """Three prompts with n responses each, of different lengths."""
    responses = [[codec.response(TEXTS[(i + k) % 4]) for k in range(n)] for i in range(3)]
    return Batch(NAMES, [codec.prompt(PROMPTS[name]) for name in NAMES], responses)


def build(data: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, seed: int) -> Batch:
    """What the trainings' specification names this module for: one response a prompt."""
    return examples(codec, 1)


def plain_laws(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """log-probabilities of all tokens at each position of the response [T, V], unpadded."""
    return model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)


def plain_kl(teacher: Any, student: Any, batch: Batch, forward: bool) -> list[Tensor]:
    """Divergences [T] of each response, by the definition."""
    found = []
    for prompt, responses in zip(batch.prompts, batch.responses, strict=True):
        for ids in responses:
            p, q = plain_laws(teacher, prompt, ids).detach(), plain_laws(student, prompt, ids)
            p, q = (p, q) if forward else (q, p)
            found.append(
                torch.stack([sum(a.exp() * (a - b) for a, b in zip(*at, strict=True)) for at in zip(p, q, strict=True)])
            )
    return found


def packed_of(batch: Batch, codec: TextCodec) -> Packed:
    return batch.packed(codec.pad_id)


def pair(codec: TextCodec, kind: str = "llama") -> tuple[Any, Any]:
    """A frozen teacher and a smaller student, random, in float64 (but for their norms, which are in float32)."""
    teacher = new_policy(MODELS[kind], codec, 0).double().requires_grad_(False)
    return teacher, new_policy(MODELS[kind] | {"num_hidden_layers": 1}, codec, 1).double()


def gradient(model: Any) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("forward", [True, False])
def test_divergences_and_their_gradient(forward: bool, kind: str, teacher: Path) -> None:
    codec = TextCodec(teacher)
    batch = examples(codec)
    of_teacher, of_student = pair(codec, kind)
    found = packed_token_kl(of_teacher, of_student, packed_of(batch, codec), forward=forward)
    expected = plain_kl(of_teacher, of_student, batch, forward)
    for mine, other in zip(found.flatten(0, 1), expected, strict=True):
        assert (mine[: len(other)] - other).abs().max() < 1e-6
        assert (mine[len(other) :] == 0).all()
    assert min(float(other.min().detach()) for other in expected) > 0.01
    found.sum().backward()
    mine = gradient(of_student)
    of_student.zero_grad()
    torch.cat(expected).sum().backward()
    assert (mine - gradient(of_student)).abs().max() < 1e-5 * mine.abs().max()
    assert all(parameter.grad is None for parameter in of_teacher.parameters())


def test_the_directions_differ_and_vanish_for_one_model(teacher: Path) -> None:
    codec = TextCodec(teacher)
    packed = packed_of(examples(codec), codec)
    of_teacher, of_student = pair(codec)
    forward, reverse = (packed_token_kl(of_teacher, of_student, packed, forward=first) for first in (True, False))
    assert ((forward - reverse).abs() > 1e-3).any()
    assert torch.allclose(forward, packed_token_kl(of_student, of_teacher, packed, forward=False))
    for first in (True, False):
        assert packed_token_kl(of_teacher, of_teacher, packed, forward=first).abs().max() < 1e-12


@pytest.mark.parametrize("forward", [True, False])
def test_chunks_change_nothing(forward: bool, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three positions at a time, of more than twenty that no three divide evenly."""
    codec = TextCodec(teacher)
    packed = packed_of(examples(codec), codec)
    of_teacher, of_student = pair(codec)
    assert int(packed.mask.sum()) > 20
    found = []
    for elements in (logprobs.CHUNK_ELEMENTS, 6 * codec.vocabulary):
        monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", elements)
        of_student.zero_grad()
        divergences = packed_token_kl(of_teacher, of_student, packed, forward=forward)
        divergences.sum().backward()
        found.append((divergences.detach(), gradient(of_student)))
    (whole, of_whole), (cut, of_cut) = found
    assert torch.allclose(whole, cut, rtol=0, atol=1e-13)
    assert (of_whole - of_cut).abs().max() < 1e-6 * of_whole.abs().max()


@pytest.mark.parametrize("length", ["sum", "mean"])
def test_the_loss_is_that_of_the_first_response(length: str, teacher: Path) -> None:
    codec = TextCodec(teacher)
    batch = examples(codec)
    of_teacher, of_student = pair(codec)
    packed = packed_of(batch, codec)
    objective = load(read_row("token_kd_reverse").model_dump() | {"length": length})
    outputs = Learner(of_student, teacher=of_teacher, teacher_first=False)(packed, 1.0)
    first = plain_kl(of_teacher, of_student, batch, forward=False)[::2]
    expected = [float((kl.sum() if length == "sum" else kl.mean()).detach()) for kl in first]
    assert objective_term(objective)(outputs, batch, packed).tolist() == pytest.approx(expected, rel=1e-6)


# ---- trainings -------------------------------------------------------------------------------------------------------


def specification(objective: str, **optimisation: Any) -> dict[str, Any]:
    settings = {"steps": 8, "batch_size": 2, "micro_batch_size": 2, "learning_rate": 1e-2, **optimisation}
    return {"data": {"examples": __name__}, "objective": read_row(objective).model_dump(), "optimisation": settings, "seed": 0}


def test_other_tokenizers_are_refused(student: Path, tmp_path: Path) -> None:
    other = write_teacher(tmp_path / "other", corpus=("entirely different words",))
    with pytest.raises(UserError) as error:
        stage.run(specification("token_kd_forward"), {"init": student, "teacher": other}, tmp_path / "out", tmp_path / "s")
    assert str(error.value).startswith(f"{student} and {other} have different tokenizers")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("objective", ["token_kd_forward", "token_kd_reverse"])
def test_a_student_comes_near_its_teacher(objective: str, teacher: Path, student: Path, tmp_path: Path) -> None:
    """On what it was trained on, by log-probabilities of transformers alone; the first loss is the mean over the batch."""
    spec = specification(objective, steps=150, batch_size=3, micro_batch_size=3)
    stage.run(spec, {"init": student, "teacher": teacher}, tmp_path / "out", tmp_path / "scratch")
    log, codec = read_log(tmp_path / "out"), TextCodec(teacher)
    models = [load_policy(folder) for folder in (teacher, student, tmp_path / "out")]
    batch = examples(codec, 1)
    forward = objective == "token_kd_forward"
    before, after = (sum(float(kl.sum().detach()) for kl in plain_kl(models[0], m, batch, forward)) / 3 for m in models[1:])
    assert log[0]["loss"] == pytest.approx(before, rel=1e-4)
    assert after < before / 5
    prompt, answer = batch.prompts[0], batch.responses[0][0]
    gaps = [(plain_logps(m, prompt, answer) - plain_logps(models[0], prompt, answer)).abs().mean() for m in models[1:]]
    assert gaps[1] < gaps[0]


def test_a_stopped_training_goes_on(teacher: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped behind the checkpoint of step 4: it ends as one that was never stopped. The teacher is in no checkpoint."""
    spec = specification("token_kd_reverse", checkpoint_every=2, probe_every=1)
    inputs = {"init": student, "teacher": teacher, "probe": tmp_path}
    monkeypatch.setattr(stage, "_probe", stop_at(0))
    stage.run(spec, inputs, tmp_path / "whole", tmp_path / "unused")
    monkeypatch.setattr(stage, "_probe", stop_at(5))
    with pytest.raises(Stopped):
        stage.run(spec, inputs, tmp_path / "parts", tmp_path / "scratch")
    state = torch.load(tmp_path / "scratch" / checkpoint.NAME, weights_only=True)
    assert state["step"] == 4
    of_student = {f"policy.{name}" for name, _ in load_policy(student).named_parameters()}
    assert set(state["trainable"]) == of_student
    monkeypatch.setattr(stage, "_probe", stop_at(0))
    stage.run(spec, inputs, tmp_path / "parts", tmp_path / "scratch")
    assert same_training(tmp_path / "whole", tmp_path / "parts")
    assert not (tmp_path / "scratch").exists()
    hidden = {
        tensor.shape[-1] for name, tensor in load_file(tmp_path / "parts" / "model.safetensors").items() if "embed" in name
    }
    assert hidden == {8}, "the teacher was saved in place of the student"
