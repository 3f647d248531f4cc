"""Published tables: written once, verified against their rows, compared; on a small suite's folder made by the stage itself."""

import contextlib
import csv
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from prefdist import artefacts, cli
from prefdist.config.pad import PadSuite
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.plan import Plan, plan
from prefdist.results import ablation
from prefdist.results.marker import discard_if_stale, published_folder
from prefdist.results.publish import publish
from prefdist.results.release import find, releases
from prefdist.results.values import values_digest
from prefdist.suites import load_suite

ROOT = Path(__file__).resolve().parents[1]
METRICS = {"win_rate_start": 0.5, "kendall_tau": 0.2}
VARIANTS = Path("results/pad_smoke/v1-ablations/variants")


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}


def make(root: Path, *, shift: float = 0.0, slow: bool = False) -> Plan:
    """The ablation `variants` of pad_smoke by its own stage, from evaluations whose rows are drawn here."""
    suite = load_suite("pad_smoke", root)
    assert isinstance(suite, PadSuite)
    made = plan(suite, root).ablations["variants"]
    for artefact in made.final.inputs.values():
        generator = np.random.default_rng(len(artefact.name))
        rows = [
            {
                "run": artefact.name,
                "seed": seed,
                "prompt_id": f"p{p}",
                "metric": metric,
                "value": generator.normal(mean, 0.1) + shift,
            }
            for metric, mean in METRICS.items()
            for seed in suite.seeds
            for p in range(12)
        ]
        identity = {"stage": "student", "name": artefact.name, "digest": artefact.digest, "code": "c0de"}
        shutil.rmtree(root / artefact.path, ignore_errors=True)
        artefacts.make(
            root / artefact.path,
            identity=identity,
            inputs={},
            run=lambda out, rows=rows: tables.write_table(out / "metrics.parquet", rows, tables.METRICS),  # type: ignore[misc]
        )
    inputs = {role: artefact.path for role, artefact in made.final.inputs.items()}
    identity = {
        "stage": "ablation",
        "name": made.final.name,
        "digest": made.final.digest,
        "code": "c0de",
        "spec": made.final.spec,
    }
    shutil.rmtree(root / made.final.path, ignore_errors=True)
    artefacts.make(
        root / made.final.path,
        identity=identity,
        inputs=inputs,
        run=lambda out: ablation.run(made.final.spec, inputs, out, out),
    )
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that has made and published the ablation."""
    root = tmp_path_factory.mktemp("template")
    (root / "workflow").mkdir()
    for name in ("suites", "objectives"):
        shutil.copytree(ROOT / "workflow" / name, root / "workflow" / name)
    (root / "Snakefile").touch()
    (root / "requirements").mkdir()
    (root / "requirements/lock.txt").write_text("torch==2\n")
    with contextlib.chdir(root):
        assert publish(make(root), root) == VARIANTS
    return root


@pytest.fixture
def checkout(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


@pytest.fixture
def released(checkout: Path) -> Path:
    return checkout / VARIANTS


def output(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert cli.main(["results", *arguments]) == status
    return capsys.readouterr().out


VERIFY = ("verify", "pad_smoke", "--ablation", "variants")


def test_what_is_published(released: Path, checkout: Path) -> None:
    record = json.loads((released / "release.json").read_text())
    assert (record["suite"], record["version"], record["ablation"]) == ("pad_smoke", "v1", "variants")
    assert set(record["files"]) == {file.name for file in released.iterdir()} - {"release.json"}
    for name, digest in record["files"].items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest
    assert record["requirements"] == {"lock.txt": hashlib.sha256(b"torch==2\n").hexdigest()}
    assert record["git"] == {"commit": None, "tag": None, "dirty": None}
    assert record["container"] is None
    assert yaml.safe_load((released / "suite.yaml").read_text())["suite"] == "pad_smoke"
    runs = {row["run"] for row in pq.read_table(released / "metrics.parquet").to_pylist()}
    assert runs == {"paper", "released"}


def test_published_once_and_never_changed(released: Path, checkout: Path) -> None:
    before = snapshot(released)
    made = make(checkout)  # another time, other seconds in its provenance
    assert publish(made, checkout) == VARIANTS
    assert snapshot(released) == before
    assert [release.folder for release in releases(checkout)] == [VARIANTS]


def test_other_values_go_to_a_local_version(released: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(released)
    made = make(checkout, shift=0.5)
    folder = publish(made, checkout)
    assert snapshot(released) == before
    label = values_digest(checkout / made.final.path)[:8]
    assert folder == Path(f"results/pad_smoke/v1+{label}-ablations/variants")
    said = capsys.readouterr().err
    assert f"{VARIANTS} holds other values and is kept as it is; the new ones are in {folder}." in said
    assert f"prefdist results diff pad_smoke v1 v1+{label} --ablation variants" in said
    assert publish(made, checkout) == folder
    (checkout / folder / "table.csv").write_text("edited")
    assert publish(made, checkout) == folder, "its name says what it holds, so it is put right"
    assert (checkout / folder / "table.csv").read_bytes() == (checkout / made.final.path / "table.csv").read_bytes()
    assert find(checkout, "pad_smoke", f"v1+{label}", "variants").version == f"v1+{label}"


def test_the_marker_names_the_folder_while_it_is_there(released: Path, checkout: Path) -> None:
    made = plan(load_suite("pad_smoke", checkout), checkout).ablations["variants"]
    assert published_folder(checkout, made.published) == VARIANTS
    discard_if_stale(checkout, made.published)
    assert (checkout / made.published).is_file()
    record = json.loads((released / "release.json").read_text())
    (released / "release.json").write_text(json.dumps({**record, "values": "another's"}))
    assert published_folder(checkout, made.published) is None
    shutil.rmtree(released)
    discard_if_stale(checkout, made.published)
    assert not (checkout / made.published).exists()
    assert publish(made, checkout) == VARIANTS


def test_values_are_cells_and_rows_not_costs_or_bytes(released: Path, tmp_path: Path) -> None:
    before = values_digest(released)
    (released / "cost.csv").write_text("run,seconds\npaper,1.5\n")
    rows = pq.read_table(released / "metrics.parquet")
    pq.write_table(rows, released / "metrics.parquet", compression="gzip")
    assert values_digest(released) == before
    changed = rows.to_pylist()
    changed[0]["value"] = math.nextafter(changed[0]["value"], 9.0)
    tables.write_table(released / "metrics.parquet", changed, tables.METRICS)
    assert values_digest(released) != before


def test_verify_agrees_with_what_was_released(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = output(capsys, *VERIFY)
    assert "rebuilt from metric rows, 4 cells: table.csv, table.md" in shown  # 2 runs × 2 metrics
    assert "checked by digest alone: figure.png, figure.svg, manifest.json, metrics.parquet" in shown
    assert "every file and cell is what was released" in shown


def test_verify_names_a_cell_that_was_edited(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (released / "table.csv").open() as file:
        lines = list(csv.reader(file))
    run, metric, estimate = lines[2][:3]
    lines[2][2] = "99.5"
    (released / "table.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    shown = output(capsys, *VERIFY, status=1)
    assert f"{VARIANTS}: table.csv: its SHA-256 is not what release.json says" in shown
    assert f"table.csv: {run} / {metric}: the table has 99.5 [" in shown
    assert f"its metric rows give {estimate} [" in shown
    assert shown.count("the table has") == 1


def test_verify_names_the_cells_of_an_edited_row(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tables.read_table(released / "metrics.parquet", tables.METRICS)
    run, metric = rows[0]["run"], rows[0]["metric"]
    rows[0]["value"] += 1.0
    tables.write_table(released / "metrics.parquet", rows, tables.METRICS)
    shown = output(capsys, *VERIFY, status=1)
    assert "metrics.parquet: its SHA-256 is not what release.json says" in shown
    assert shown.count("the table has") == 1
    values = [row["value"] for row in rows if (row["run"], row["metric"]) == (run, metric)]
    scale = 100 if metric == "win_rate_start" else 1
    assert f" / {metric}: the table has" in shown
    assert f"its metric rows give {scale * float(np.mean(values)):.6g} [" in shown


@pytest.mark.parametrize("name", ["metrics.parquet", "table.csv", "figure.svg", "provenance.json"])
def test_verify_names_a_truncated_and_a_missing_file(name: str, released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(released / name, (released / name).stat().st_size // 2)
    assert f"{VARIANTS}: {name}: its SHA-256 is not what release.json says" in output(capsys, *VERIFY, status=1)
    (released / name).unlink()
    assert f"{VARIANTS}: {name}: missing, though release.json lists it" in output(capsys, *VERIFY, status=1)


def test_verify_names_a_file_that_was_added(released: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (released / "more.csv").write_text("a\n1\n")
    assert "more.csv: not listed in release.json" in output(capsys, *VERIFY, status=1)


def test_diff(released: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("diff", "pad_smoke", "v1")
    of = ("--ablation", "variants")
    assert "have the same values: 4 cells, 0 apart" in output(capsys, *arguments, *of)  # what was made last is the release
    suite = checkout / "workflow/suites/pad_smoke.yaml"
    nearly = publish(make(checkout, shift=1e-3), checkout)
    shown = output(capsys, *arguments, nearly.parts[2].removesuffix("-ablations"), *of)
    assert "agree within their intervals: 4 cells, 0 apart, 0 in one only, 4 changed" in shown
    suite.write_text(suite.read_text().replace("alpha: 0.8", "alpha: 0.7"))
    apart = publish(make(checkout, shift=9.0), checkout)
    shown = output(capsys, *arguments, *of, status=1)
    assert f"b = {apart} differ: 4 cells, 4 apart, 0 in one only" in shown
    assert "0.8 -> 0.7" in shown
    assert "code:" not in shown


def test_list_and_show(released: Path, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(make(checkout, shift=0.5), checkout)
    lines = output(capsys, "list", "--suite", "pad_smoke").splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:3] == ["pad_smoke", "v1", "variants"]
    assert lines[2].split()[1].startswith("v1+")
    assert "2 × 2" in lines[1]
    assert all(line.split()[-1] == "local" for line in lines[1:])  # there is no git here
    shown = output(capsys, "show", "pad_smoke", "--ablation", "variants", "--metrics", "kendall_tau")
    assert "Kendall τ" in shown
    assert "win rate" not in shown
    assert "win rate" in output(capsys, "show", "pad_smoke", "v1", "--ablation", "variants")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["show", "nonsense", "v1"], "no tables of a suite nonsense; there are tables of: pad_smoke"),
        (["show", "pad_smoke", "v9"], "results/pad_smoke/v9: no such version; there are: v1"),
        (["show", "pad_smoke", "v1"], "only ablations, name one with --ablation; its ablations are: variants"),
        (["verify", "pad_smoke", "--ablation", "x"], "no ablation x; its ablations are: variants"),
        (["list", "--suite", "x"], "--suite x: no tables of it in results/; there are tables of: pad_smoke"),
        (
            ["show", "pad_smoke", "--ablation", "variants", "--metrics", "x"],
            "--metrics x: not in the table; it has win_rate_start",
        ),
        (["diff", "smoke"], "no tables of a suite smoke"),
    ],
)
def test_errors_name_what_there_is(
    arguments: list[str], sentence: str, released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output(capsys, *arguments, status=2)
    cli.main(["results", *arguments])
    assert sentence in capsys.readouterr().err


def test_rerun_refuses_what_this_checkout_no_longer_makes(
    released: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = checkout / "workflow/suites/pad_smoke.yaml"
    suite.write_text(suite.read_text().replace("version: v1", "version: v2"))
    output(capsys, "verify", "pad_smoke", "v1", "--ablation", "variants", "--rerun", status=2)
    suite.write_text(suite.read_text().replace("version: v2", "version: v1").replace("alpha: 0.8", "alpha: 0.7"))
    capsys.readouterr()
    cli.main(["results", *VERIFY, "--rerun"])
    assert "not the configuration of results/pad_smoke/v1-ablations/variants any more" in capsys.readouterr().err


def test_a_damaged_artefact_is_not_published(released: Path, checkout: Path) -> None:
    shutil.rmtree(released)
    made = plan(load_suite("pad_smoke", checkout), checkout).ablations["variants"]
    (checkout / made.final.path / "table.csv").write_text("edited")
    with pytest.raises(UserError, match=r"table\.csv: its content is not"):
        publish(made, checkout)
    assert not released.exists()
