"""From a prompt to thoughts and an answer.

In: ids of prompts. Out: a ThinkResponse for each prompt.

Files: decoding.py, think_response.py, token_choice.py. Own decoding of plain decoder layers: folded_weights.py,
kv_cache.py, decoder.py, memory.py, continuous_batching.py. All other models: with_transformers.py. The choice:
generate.py.
"""
