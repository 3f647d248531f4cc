"""What a suite will cost before it runs: jobs, hours and disk; and after it ran, the forecast beside what was used.

Read-only, without torch. parameters.py: a model's size; lengths.py: tokens of its text; work.py and training.py: the work of
an artefact from both; states.py: what is made already; throughput.py: how fast such work was, or is assumed to be;
classes.py: what the cluster's profile asks for; forecast.py brings them together, table.py prints.
"""
