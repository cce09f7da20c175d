"""Batches in, a trained model out.

The rooms in their order; a room imports only from rooms before it:

- `internals`: functions around private APIs of torch, transformers, peft and Lightning, one file per library
- `ranks.py`: lists that every rank has a part of
- `fused`: decoder layers and attention that keep less for the backward pass
- `net`: the base model with adapters, new-token embeddings and the loss
- `update`: the optimizer, the learning rate, and gradients that are not finite
- `generation`: prompts in, thoughts and answers out
- `evaluation`: loss by role, scores of answers, and the table of both
- `run`: the run folder, callbacks, signals, throughput
- `checkpoints`: what a checkpoint holds, and how training resumes from it
- `think_tuner.py`: the LightningModule, which uses all of them
- `servers`: what other servers need beside the exported weights
- `export`: the trained model as a folder for transformers or peft
- `estimate`: the memory of a training step, without a device
"""
