"""From gradients to new weights. In: the loss of an optimizer step. Out: updated weights, or an error.

- `dropout.py`: the seed of dropout in each micro-batch
- `precision.py`: float16 and bfloat16 in training
- `optim.py`: AdamW and the learning-rate schedule
- `nonfinite.py`: the gradient norm, and the check that stops before an update by NaN or infinity
"""
