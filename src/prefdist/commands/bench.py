"""Speed and memory."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    bench = commands.add_parser("bench", help="speed and memory of training, beside TRL's, and of divergences: results/bench")
    bench.add_argument("--rounds", type=int, default=3)
    bench.add_argument("--only", choices=("training", "divergences"), help="one of the two benches")
    bench.set_defaults(call=_bench)


def _bench(options: argparse.Namespace) -> None:
    from prefdist.bench import divergences, stage

    if options.only != "divergences":
        stage.bench(rounds=options.rounds)
    if options.only != "training":
        divergences.bench(rounds=options.rounds)
