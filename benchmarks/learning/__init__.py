"""Does the model learn, and which settings matter? python -m benchmarks.learning; see benchmarks/README.md."""
