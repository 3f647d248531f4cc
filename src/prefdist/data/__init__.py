"""Where text comes from, the schemas of the tables between stages, and the order of an epoch."""
