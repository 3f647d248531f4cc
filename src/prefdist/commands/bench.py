"""Speed, memory, how good forecasts are, and what kills do."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser("bench", help="speed and memory of training, beside TRL's, and of divergences: results/bench")
    bench.add_argument("--rounds", type=int, default=3)
    bench.add_argument(
        "--only",
        choices=("training", "divergences", "forecast", "vllm", "training_gpu"),
        help="one of the benches; forecast reads what suites used; vllm and training_gpu (of a GPU) run only when named",
    )
    bench.set_defaults(call=_bench)

    chaos = commands.add_parser("chaos", help="kill a suite's runs at random and compare its tables: results/bench/chaos.md")
    chaos.add_argument("--suite", default="smoke")
    chaos.add_argument("--kills", type=int, default=20)
    chaos.add_argument("--seed", type=int, default=0)
    chaos.add_argument("--cores", type=int, default=2)
    chaos.set_defaults(call=_chaos)


def _bench(options: argparse.Namespace) -> None:
    from prefdist.bench import divergences, forecast, gpu, stage, vllm

    if options.only == "training_gpu":
        gpu.bench(rounds=options.rounds)
        return
    if options.only == "forecast":
        forecast.bench()
        return
    if options.only == "vllm":
        vllm.bench(rounds=options.rounds)
        return
    if options.only != "divergences":
        stage.bench(rounds=options.rounds)
    if options.only != "training":
        divergences.bench(rounds=options.rounds)


def _chaos(options: argparse.Namespace) -> int:
    from prefdist.bench.chaos import chaos

    return chaos(options.suite, options.kills, options.seed, options.cores)
