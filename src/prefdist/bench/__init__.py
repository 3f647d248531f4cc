"""Speed and memory beside TRL's: what is measured (stage.py), on which data (workload.py), and each side of it.

Every measurement is a fresh process (worker.py), so that none inherits another's memory, caches or threads.
"""
