"""From prepared examples to the micro-batches of every optimizer step, the same on every run.

In:  a TokenDataset (token ids and roles), the batch size, data.packing, data.tokens_per_step, a seed.
Out: Batch, the tensors of one micro-batch of one rank.

    packing     whole examples into packs of max_length tokens; balanced assignment to steps and micro-batches
    plan        StepSize; the examples of every micro-batch of an epoch, on every rank
    step_size   the StepSize of a fit, and its description for the log and summary.json
    limits      Lightning's limits on batches, checked against the plan
    collate     Batch: examples one after another, without padding, with the positions that have a loss
    loader      the batches of a plan, made ahead by threads; the training loader that resumes in the middle of an epoch
"""
