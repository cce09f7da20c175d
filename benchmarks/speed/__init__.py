"""Training speed and memory against TRL and plain transformers with peft: python -m benchmarks.speed."""
