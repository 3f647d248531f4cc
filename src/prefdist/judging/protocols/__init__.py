"""Protocols by name: what is asked of an endpoint, and how its replies are read. One file each."""

from prefdist.judging.protocols import alpaca_eval, arena_hard, mt_bench, tldr
from prefdist.judging.protocols.form import Protocol

PROTOCOLS: dict[str, Protocol] = {
    "tldr": tldr.PROTOCOL,
    "alpaca_eval": alpaca_eval.PROTOCOL,
    "mt_bench": mt_bench.PROTOCOL,
    "arena_hard": arena_hard.PROTOCOL,
}
