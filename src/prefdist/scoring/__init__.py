"""Put numbers on responses: log-probabilities, rewards, known preferences."""
