"""The committed suite pad.yaml, every stage of it, on tiny models of the families that it names."""

import csv
import json
import math
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import TEXTS, gemma2_folder, incline_to_end, llama3_folder
from conftest import plain_logps
from judge_inputs import likes_length
from judge_servers import serving
from safetensors.torch import load_file
from test_pad_plan import PATH, committed
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdist import artefacts
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.judging.schemas import COMPARISONS
from prefdist.plan import STAGES, Artefact, Plan, plan
from prefdist.scoring.questions import TEMPLATES
from prefdist.suites import parse_suite

TINY = {
    "gemma_9b": (gemma2_folder, {"hidden": 32, "seed": 1, "final_logit_softcapping": 30.0}),
    "gemma_2b": (gemma2_folder, {"seed": 2, "final_logit_softcapping": 30.0}),
    "llama_8b": (llama3_folder, {"hidden": 32, "seed": 3}),
    "llama_3b": (llama3_folder, {"seed": 4}),
}


def tiny_model(name: str, folder: Path) -> Path:
    """With the answer None and the words of the questions as tokens, room for these, and an inclination to end its turns."""
    maker, options = TINY[name]
    maker(folder / "plain", **options)
    tokenizer = AutoTokenizer.from_pretrained(folder / "plain")
    tokenizer.add_tokens(sorted(set(re.findall(r"\w{4,}", TEMPLATES["judge"].question))))
    out = maker(folder / name, **options, vocab_size=len(tokenizer), max_position_embeddings=2048)
    tokenizer.save_pretrained(out)
    return incline_to_end(out, "<end_of_turn>" if "gemma" in name else "<|eot_id|>")


def write_prompts(folder: Path) -> None:
    """In the columns of UltraFeedback, binarised."""
    folder.mkdir()
    for split, size in {"train_prefs": 4, "test_prefs": 2}.items():
        rows = []
        for i in range(size):
            prompt = f"{TEXTS[i]} Then say what you have done, in {split}."
            chosen = [{"role": "user", "content": prompt}, {"role": "assistant", "content": f"I did it {i} times."}]
            rows.append({"prompt": prompt, "prompt_id": str(i), "chosen": chosen, "score_chosen": 8.0})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_alpaca_eval(folder: Path) -> None:
    """Six instructions with answers of several lengths, and made-up difficulties and gamed rows."""
    folder.mkdir()
    answered = [{"instruction": text, "output": f"I {text}"[: 6 + 4 * i]} for i, text in enumerate(TEXTS[3:])]
    for file in ("alpaca_eval_gpt4_baseline.json", "alpaca_eval.json"):
        (folder / file).write_text(json.dumps(answered))
    rows = [f"{i},{0.2 + 0.1 * i},{0.5 - 0.2 * i},{1 - 0.4 * i}\n" for i in range(6)]
    (folder / "df_gamed.csv").write_text("".join(["index,preference,std_delta_len,instruction_difficulty\n", *rows]))


def shrunk(folder: Path, endpoint: str) -> dict[str, Any]:
    """pad.yaml with all its runs and ablations; models, prompts, sizes and the judge are replaced."""
    mapping = committed()
    assert mapping["models"].keys() == TINY.keys()
    mapping["seeds"], mapping["train_prompts"] = [0], 3
    splits = mapping["prompts"]["splits"]
    mapping["prompts"] = {"dataset": str(folder / "prompts"), "splits": splits, "seed": mapping["prompts"]["seed"]}
    for name, model in mapping["models"].items():
        del model["hub"], model["revision"]
        model |= {"folder": str(folder / name), "dtype": "float32"}  # so that scores can be compared closely
    for samples in mapping["samples"].values():
        samples |= {"draws": 8, "max_new_tokens": 8}
    mapping["evaluation"] |= {"prompts": 2, "max_new_tokens": 8}
    (of_set,) = mapping["judged"]["sets"].values()
    del of_set["revision"]
    of_set |= {"dataset": str(folder / "alpaca_eval"), "prompts": 6}
    of_set["judging"]["judge"] = {"kind": "endpoint", "base_url": endpoint, "model": "judge", "key_variable": None}
    mapping["judged"] |= {"max_new_tokens": 8}
    mapping["defaults"]["optimisation"] |= {"steps": 2, "batch_size": 3, "warmup_steps": 1, "learning_rate": 1e-3}
    return mapping


def make(root: Path, artefact: Artefact) -> Path:
    """The artefact and all that it is made from, in the checkout `root`, as `prefdist make` makes them."""
    out = root / artefact.path
    if not (out / artefacts.PROVENANCE).is_file():
        inputs = {role: make(root, source) for role, source in artefact.inputs.items()}
        stage, scratch = import_module(STAGES[artefact.stage]), root / "scratch" / artefact.path.name
        identity = {"stage": artefact.stage, "name": artefact.name, "digest": artefact.digest, "code": artefact.code_digest}
        artefacts.make(
            out,
            identity={**identity, "spec": artefact.spec},
            inputs=inputs,
            run=lambda folder: stage.run(artefact.spec, inputs, folder, scratch),
        )
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A checkout in which everything has been made, and its plan."""
    folder = tmp_path_factory.mktemp("models")
    for name in TINY:
        tiny_model(name, folder)
    write_prompts(folder / "prompts")
    write_alpaca_eval(folder / "alpaca_eval")
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, serving(likes_length) as server:
        found = plan(parse_suite(shrunk(folder, server.url), PATH), folder)
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        for final in (found, *found.ablations.values()):
            make(root, final.final)
    return root, found


def named(found: Plan, stage: str, start: str) -> Artefact:
    """The one artefact of a stage whose name starts so."""
    (artefact,) = [artefact for artefact in found.of_stage(stage) if artefact.name.startswith(start)]
    return artefact


def read(root: Path, artefact: Artefact, file: str, schema: Any) -> list[dict[str, Any]]:
    return tables.read_table(root / artefact.path / file, schema)


def test_every_table_is_complete(made: tuple[Path, Plan]) -> None:
    """Prompts, their n samples, a score for each sample, all questions about them; nothing that is not a number."""
    root, found = made
    samples = {}
    for drawn in found.of_stage("responses"):
        rows = read(root, drawn, "responses.parquet", tables.SAMPLES)
        prompts = 2 if drawn.spec["split"] == "test" else 3
        assert [row["sample"] for row in rows] == [*range(4)] * prompts
        assert len({row["prompt_id"] for row in rows}) == prompts
        samples[drawn.path] = [(row["prompt_id"], row["sample"]) for row in rows]
    for scored in found.of_stage("scores"):
        rows = read(root, scored, "scores.parquet", tables.TEACHER_SCORES)
        assert [(row["prompt_id"], row["sample"]) for row in rows] == samples[scored.inputs["responses"].path]
        assert all(math.isfinite(row["logp"]) and row["logp"] < 0 for row in rows)
    for asked in found.of_stage("questions"):
        rows = read(root, asked, "questions.parquet", tables.QUESTIONS)
        n, prompts = asked.spec["n"], len({name for name, _ in samples[asked.inputs["responses"].path]})
        assert len(rows) == {"n_way": n, "pairwise": n * (n - 1)}[asked.spec["kind"]] * prompts
        for row in rows:
            assert 0 < row["mass"] <= 1 + 1e-6
            assert row["mass"] == pytest.approx(sum(row["p_options"]) + row["p_none"])
    expected = {"kendall_tau", "jsd_teacher", "prefers_longer", "length", "longer_than_start", "unfinished", "distinct_2"}
    for student in found.of_stage("student"):
        rows = read(root, student, "metrics.parquet", tables.METRICS)
        assert {row["metric"] for row in rows} == expected, "nothing about known preferences: there is no world"
        assert len(rows) == 2 * len(expected)
    assert len(found.of_stage("student")) == len(committed()["runs"])


def test_models_end_their_answers_in_several_ways(made: tuple[Path, Plan]) -> None:
    """By their end of turn or by another end; all of them are in the ids and none in the text."""
    root, found = made
    ends: dict[str, set[str]] = {}
    for drawn in found.of_stage("responses"):
        tokenizer = AutoTokenizer.from_pretrained(root / drawn.inputs["policy"].path)
        for row in read(root, drawn, "responses.parquet", tables.SAMPLES):
            last = tokenizer.convert_ids_to_tokens(row["token_ids"][-1])
            reason = last if row["finish_reason"] == "stop" else row["finish_reason"]
            ends.setdefault(drawn.name.split("_")[0], set()).add(reason)
            ids = row["token_ids"][:-1] if reason == last else row["token_ids"]
            assert row["text"] == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert {"length", "<end_of_turn>"} <= ends["gemma"] <= {"length", "<end_of_turn>", "<eos>"}
    assert {"length", "<|eot_id|>"} <= ends["llama"] <= {"length", "<|eot_id|>", "<|end_of_text|>"}


def conversation_logp(folder: Path, prompt: str, answer: str, end: str | None) -> float:
    """log p of the answer in the model's own conversation, by transformers alone; the token `end` counts where given."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    options = {"return_dict": False, "date_string": "26 Jul 2024"}
    opening = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, **options)
    ids = tokenizer.apply_chat_template(turns, **options)
    assert ids[: len(opening)] == opening
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id
    spoken = ids[len(opening) :]
    stop = spoken.index(tokenizer.convert_tokens_to_ids(end or ("<end_of_turn>" if "gemma" in folder.name else "<|eot_id|>")))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return float(plain_logps(model, opening, spoken[: stop + 1] if end else spoken[:stop]).sum())


@pytest.mark.parametrize(
    ("teacher", "student", "end"),
    [
        ("gemma_9b", "gemma_2b", "<end_of_turn>"),
        ("llama_8b", "llama_3b", "<|eot_id|>"),
        ("gemma_9b", "llama_3b", "<end_of_turn>"),
    ],
)
def test_scores_are_those_of_the_conversation(teacher: str, student: str, end: str, made: tuple[Path, Plan]) -> None:
    root, found = made
    scored = named(found, "scores", f"{teacher}-{student}-paper")
    responses = read(root, scored.inputs["responses"], "responses.parquet", tables.SAMPLES)
    scores = read(root, scored, "scores.parquet", tables.TEACHER_SCORES)
    folder = root / scored.inputs["teacher"].path
    special = [token.content for token in AutoTokenizer.from_pretrained(folder).added_tokens_decoder.values() if token.special]
    compared = []
    for row, score in zip(responses, scores, strict=True):
        if row["text"] != row["text"].strip() or any(token in row["text"] for token in special):
            continue  # the template would trim it, or read it as markup
        ended = row["finish_reason"] == "stop"
        expected = conversation_logp(folder, row["prompt"], row["text"], end if ended else None)
        assert score["logp"] == pytest.approx(expected, abs=1e-3)  # 30 tokens of a few nats in float32
        compared.append(ended)
    assert set(compared) == {False, True}


def test_a_teacher_in_bfloat16(made: tuple[Path, Plan], tmp_path: Path) -> None:
    """As the committed suite has it: near the scores in float32, 8 bits being 0.4 % of each term."""
    root, found = made
    scored = named(found, "scores", "llama_8b-llama_3b-paper")
    inputs = {role: root / source.path for role, source in scored.inputs.items()}
    assert committed()["models"]["llama_8b"]["dtype"] == "bfloat16"
    import_module(STAGES["scores"]).run({"dtype": "bfloat16"}, inputs, tmp_path, tmp_path / "scratch")
    rough = tables.read_table(tmp_path / "scores.parquet", tables.TEACHER_SCORES)
    exact = read(root, scored, "scores.parquet", tables.TEACHER_SCORES)
    gaps = [abs(a["logp"] - b["logp"]) / a["n_tokens"] for a, b in zip(rough, exact, strict=True)]
    assert 0 < max(gaps) < 0.2


def test_students_are_trained(made: tuple[Path, Plan]) -> None:
    """All weights are finite and some have moved; the tokenizer stays."""
    root, found = made
    for trained in found.of_stage("train"):
        before, after = (root / path for path in (trained.inputs["init"].path, trained.path))
        weights, start = load_file(after / "model.safetensors"), load_file(before / "model.safetensors")
        assert weights.keys() == start.keys()
        assert all(bool(weight.isfinite().all()) for weight in weights.values())
        assert any(not torch.equal(weights[name], start[name]) for name in start)
        old, new = (AutoTokenizer.from_pretrained(folder) for folder in (before, after))
        assert (old.chat_template, old.get_vocab()) == (new.chat_template, new.get_vocab())


def test_the_tables_of_results(made: tuple[Path, Plan]) -> None:
    """Every run with every metric, every pair of teacher and student, every ablation with its values."""
    root, found = made
    suite, results = committed(), root / found.final.path

    def cells_of(file: Path) -> list[dict[str, str]]:
        return list(csv.DictReader(file.read_text().splitlines()))

    def column(file: Path) -> set[str]:
        return {row["run"] for row in cells_of(file)}

    students = {cell["run"] for cell in cells_of(results / "table.csv") if "/" not in cell["metric"]}
    assert students == column(results / "cost.csv") == suite["runs"].keys()
    teachers = {"gemma_9b-gemma_2b", "gemma_9b-llama_3b", "llama_8b-llama_3b"}
    assert {file.stem for file in results.glob("teacher-*.csv")} == {f"teacher-{pair}" for pair in teachers}
    for pair in teachers:
        cells = cells_of(results / f"teacher-{pair}.csv")
        assert {cell["metric"] for cell in cells} == {"entropy"}, "what a teacher is right about is not known here"
        assert {"likelihood", "calibrated", "n_way, averaged", "pairwise, fixed"} <= {cell["run"] for cell in cells}
    for name, ablation in suite["ablations"].items():
        assert column(root / found.ablations[name].final.path / "table.csv") == ablation["runs"].keys()


def test_a_repeated_run_gives_the_same_bytes(made: tuple[Path, Plan], tmp_path: Path) -> None:
    """From the copied models on: samples, scores, answers, weights and metrics."""
    root, found = made
    student = named(found, "student", "llama_from_gemma")
    make(tmp_path, student)
    again = [file for pattern in ("*.parquet", "*.safetensors") for file in (tmp_path / "artefacts").rglob(pattern)]
    stages = {file.relative_to(tmp_path).parts[1] for file in again}
    assert {"prompts", "responses", "scores", "questions", "train", "held_out", "student"} <= stages
    for file in again:
        assert file.read_bytes() == (root / file.relative_to(tmp_path)).read_bytes(), file


def test_laws_of_tokens_need_one_tokenizer(made: tuple[Path, Plan]) -> None:
    root, found = made
    folder = Path(found.artefacts[str(named(found, "model", "gemma_2b").path)].spec["folder"]).parent
    mapping = shrunk(folder, "http://localhost:1/v1")
    mapping["runs"]["gemma_kd"] |= {"student": "llama_3b"}
    other = plan(parse_suite(mapping, PATH), folder)
    with pytest.raises(UserError, match=r"llama_3b-\w+ and .*gemma_9b-\w+ have different tokenizers, and .* share one"):
        make(root, named(other, "train", "gemma_kd"))


def test_students_and_their_starts_are_judged(made: tuple[Path, Plan]) -> None:
    """By one who likes length, against the dataset's answers; shown by set, and in table.csv beside what else is measured."""
    root, found = made
    asked, results = committed()["judged"]["sets"]["alpaca_eval"]["judging"]["runs"], root / found.final.path
    table = csv.DictReader((results / "table.csv").read_text().splitlines())
    rates = {cell["run"]: float(cell["estimate"]) for cell in table if cell["metric"] == "alpaca_eval/win_rate"}
    assert rates.keys() == set(asked)
    won = 1 / (1 + math.exp(-2.3))  # of log-probabilities -0.1 and -2.4
    for policy in asked:
        judged = named(found, "judge", f"{policy}-alpaca_eval-0")
        gaps = [len(row["answer"]) - len(row["baseline"]) for row in read(root, judged, "comparisons.parquet", COMPARISONS)]
        assert len(gaps) == 6 and 0 not in gaps, "who is shown second wins at equal lengths"
        assert rates[policy] == pytest.approx(100 * sum(won if gap > 0 else 1 - won for gap in gaps) / 6, rel=1e-5)
        assert judged.inputs["answers"].inputs["policy"].stage == ("train" if policy in committed()["runs"] else "model")
    text = (results / "judged-alpaca_eval.md").read_text()
    assert all(f"| {policy} |" in text for policy in asked) and "at equal lengths" in text
    assert "judge" not in (results / "table.md").read_text()
