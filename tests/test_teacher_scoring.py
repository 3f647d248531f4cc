"""The stage `scores`: log-likelihoods against plain forward passes, what is refused, and a killed run that goes on."""

import os
import shutil
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import gemma2_folder
from conftest import plain_logps
from teacher_inputs import (
    PROMPTS,
    replaced,
    sample_rows,
    without,
    without_weights,
    write_broken_teacher,
    write_inputs,
    write_responses,
    write_text,
)

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.models import load_policy
from prefdist.progress import Progress
from prefdist.scoring import teacher
from prefdist.scoring.shards import sharded
from prefdist.tokens import TextCodec

SPEC = {"dtype": "float32"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def scores(inputs: dict[str, Path], out: Path) -> list[dict[str, Any]]:
    out.mkdir()
    teacher.run(SPEC, inputs, out, out.with_name("scratch"))
    assert not out.with_name("scratch").exists()
    return tables.read_table(out / "scores.parquet", tables.TEACHER_SCORES)


@pytest.mark.parametrize("chat", [False, True])
def test_against_plain_forward_passes(chat: bool, inputs: dict[str, Path], tmp_path: Path) -> None:
    """Also with a chat template, whose end of turn is scored and the newline behind it is not."""
    if chat:
        inputs = inputs | {"teacher": gemma2_folder(tmp_path / "gemma")}
    found = scores(inputs, tmp_path / "out")
    codec, model = TextCodec(inputs["teacher"]), load_policy(inputs["teacher"])
    rows = sample_rows()
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}
    assert [(row["prompt_id"], row["sample"]) for row in found] == [(row["prompt_id"], row["sample"]) for row in rows]
    for row, score in zip(rows, found, strict=True):
        ended = row["finish_reason"] == "stop"
        ids = codec.response(row["text"])
        assert ids[-1] == codec.eos_id
        logps = plain_logps(model, codec.prompt(row["prompt"]), ids if ended else ids[:-1])
        assert score["logp"] == pytest.approx(float(logps.sum()), abs=1e-3)
        assert score["logp_end"] == pytest.approx(float(logps[-1]) if ended else 0.0, abs=1e-4)
        assert (score["n_tokens"], score["n_end"]) == (len(logps), int(ended))
        assert score["n_bytes"] == len(row["text"].encode("utf-8"))
    assert any(score["n_bytes"] > len(row["text"]) for row, score in zip(rows, found, strict=True))


OTHER = {**PROMPTS, "p1": "another question"}
FEWER = {name: prompt for name, prompt in PROMPTS.items() if name != "p2"}


@pytest.mark.parametrize(
    ("rows", "prompts", "message"),
    [
        (sample_rows(), FEWER, r"responses.parquet: prompt 'p2' is not in .*teacher and student prompts differ"),
        (sample_rows(), OTHER, r"prompt 'p1' reads 'Say é.*', but 'another question' in .*teacher and student prompts differ"),
        (replaced(sample_rows(), "p3", 1, text=" \n"), PROMPTS, "prompt 'p3': response 1 is blank"),
        (without(sample_rows(), "p1", 1), PROMPTS, r"prompt 'p1' has samples \[0, 2, 3\], expected 0 to 3"),
        (without(sample_rows(), "p1", 3), PROMPTS, r"prompt 'p1' has samples \[0, 1, 2\], expected 0 to 3"),
        (replaced(sample_rows(), "p1", 3, sample=0), PROMPTS, r"prompt 'p1' has samples \[0, 1, 2, 0\]"),
        (replaced(sample_rows(), "p0", 2, text="long " * 260), PROMPTS, r"response of prompt 'p0' has \d+ tokens, .* is 256"),
        ([], PROMPTS, "no responses"),
    ],
)
def test_refused(
    rows: list[dict[str, Any]], prompts: dict[str, str], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Before the model is loaded: this teacher has no weights."""
    folders = {
        "text": write_text(tmp_path / "text", prompts),
        "responses": write_responses(tmp_path / "responses", rows),
        "teacher": without_weights(inputs["teacher"], tmp_path / "teacher"),
    }
    with pytest.raises(UserError, match=message):
        teacher.run(SPEC, folders, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "scratch").exists()


def test_a_teacher_that_gives_no_number(inputs: dict[str, Path], tmp_path: Path) -> None:
    broken = write_broken_teacher(tmp_path / "teacher")
    with pytest.raises(UserError, match=r"the log-likelihood of prompt 'p\d', sample 0 is nan"):
        teacher.run(SPEC, {**inputs, "teacher": broken}, tmp_path / "out", tmp_path / "scratch")
    assert not list(tmp_path.rglob("0*.parquet")), "no shard holds it"


def test_shards_keep_the_order_and_are_not_made_again(tmp_path: Path) -> None:
    """Stopped in the third shard; the first two are read afterwards, and shards are of similar length."""
    schema = tables.LOGPS
    asked: list[list[str]] = []

    def compute(part: list[str]) -> list[dict[str, Any]]:
        asked.append(part)
        if len(asked) == 3:
            raise InterruptedError
        return [{"pair_id": item, "logp_chosen": float(k), "logp_rejected": 0.1} for item in part for k in range(2)]

    items = ["ccc", "a", "bb", "dddd", "e", "ff", "g"]

    def rows() -> list[dict[str, Any]]:
        lengths = [len(item) for item in items]
        return sharded(items, lengths, compute, per_shard=2, schema=schema, scratch=tmp_path / "s", what="items")

    with pytest.raises(InterruptedError):
        rows()
    assert asked == [["a", "e"], ["g", "bb"], ["ff", "ccc"]]
    expected = [{"pair_id": item, "logp_chosen": float(k), "logp_rejected": 0.1} for item in items for k in range(2)]
    assert rows() == expected
    assert asked[3:] == [["ff", "ccc"], ["dddd"]]
    assert rows() == expected
    assert len(asked) == 5


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line is always shown; time left is measured on what this run did."""
    progress = Progress("prompts", 10, 4)
    progress.show(5)
    progress.show(10, "loss 0.5")
    assert capsys.readouterr().err == "prompts 10/10  loss 0.5  0 s left\n"
    Progress("step", 1, shown=False).show(1)
    assert capsys.readouterr().err == ""
    progress = Progress("step", 10, 4)
    progress.began -= 20.0
    progress.last -= 20.0
    progress.show(6)
    assert capsys.readouterr().err == "step 6/10  40 s left\n"


def run_in_small_shards(inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """What the killed process runs: a prompt a shard, so that it can be met between two."""
    torch.set_num_threads(1)
    teacher.SHARD = 1
    out.mkdir(exist_ok=True)
    teacher.run(SPEC, inputs, out, scratch)


def test_killed(inputs: dict[str, Path], tmp_path: Path, processes: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL after the first shards: the second run leaves them as they are, and the table is that of an unbroken run."""
    prompts = {str(i): f"Question {i} {'more ' * (i % 7)}" for i in range(200)}
    folders = {
        "text": write_text(tmp_path / "text", prompts),
        "responses": write_responses(tmp_path / "responses", sample_rows(prompts, 2)),
        "teacher": inputs["teacher"],
    }
    scratch = tmp_path / "parts.scratch"
    process = processes.Process(target=run_in_small_shards, args=(folders, tmp_path / "parts", scratch))
    process.start()
    deadline = time.monotonic() + 60
    while process.is_alive() and len(list(scratch.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL, "the stage ended before it could be killed"
    before = {file: file.stat() for file in scratch.glob("*.parquet")}
    assert 3 <= len(before) < 200
    assert not list((tmp_path / "parts").iterdir())

    monkeypatch.setattr(teacher, "SHARD", 1)
    after: dict[Path, os.stat_result] = {}
    remove = shutil.rmtree

    def look_and_remove(folder: Path, **options: Any) -> None:
        after.update({file: file.stat() for file in before})
        remove(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", look_and_remove)
        teacher.run(SPEC, folders, tmp_path / "parts", scratch)
    unmoved = [{file: (s.st_mtime_ns, s.st_ino) for file, s in found.items()} for found in (before, after)]
    assert unmoved[0] == unmoved[1]
    assert not scratch.exists()
    whole = scores(folders, tmp_path / "whole")
    assert tables.read_table(tmp_path / "parts" / "scores.parquet", tables.TEACHER_SCORES) == whole
