"""Does it learn, and by which knob? python -m benchmarks.learning; see benchmarks/README.md."""
