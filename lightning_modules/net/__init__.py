"""The net: a base model with adapters, embeddings of new tokens, and the loss.

In: a Batch. Out: LossSums.

Files: lora.py, quantize.py, base_files.py, base_model.py, activation_checkpointing.py, new_token_embeddings.py,
loss.py, think_net.py, base_check.py.
"""
