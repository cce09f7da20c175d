"""Training speed and memory of this project, of TRL and of plain transformers + peft: `python -m benchmarks.speed`."""
