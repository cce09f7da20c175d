"""The memory of a training step, computed before any weight is loaded.

In:  a ThinkTuner (the settings of model.*), the largest batch, the number of devices.
Out: MemoryEstimate for each number of devices: bytes at the peak, and their parts.

    fake_step   a dry run on fake tensors: every allocation of a forward and backward pass is counted
    memory      weights, gradients and moments from shapes; MemoryEstimate, the sum of both
    traffic     the bytes that a step moves between devices
"""
