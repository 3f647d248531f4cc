"""The stage `repeats`: a tuned model behind k repeats of one token, with controls of the same length (Huang's note).

Each prompt stands behind a filling of k tokens and a line break: repeats of one token, random tokens, or natural text. What is
measured begins at the first token of the response. A row a prompt and metric, named <metric>/<filling>/<k>:
kl = KL(π‖π₀) and variance = Var[log π − log π₀] of the first token, exact over the vocabulary; sequence_kl and sequence_variance
of whole continuations, from samples; end = probability that the first token ends the response, and finished = share of
continuations that end within their budget.

fits.json: per seed, filling and k the λ that interpolates between the model without filling (0) and π₀ behind the same filling
(1) best, and the accuracy of a classifier that tells continuations of π and π₀ apart, each with its interval.
"""
