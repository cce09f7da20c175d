"""Private APIs of peft: what a LoRA layer holds, and the names of tensors in an adapter's file."""


def new_embeddings_file_key(module: str) -> str:
    """Return the name in an adapter's file of the trained embeddings beside `module`, a path in the causal LM.

    Why private: peft reads this name for `trainable_token_indices`; it holds the embeddings, not a difference.
    """
    return f"base_model.model.{module}.token_adapter.trainable_tokens_delta"
