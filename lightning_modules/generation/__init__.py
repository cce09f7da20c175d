"""From a prompt to thoughts and an answer.

In: ids of prompts. Out: a ThinkResponse for each prompt.

Files: thinking_settings.py, token_text.py, thinking_rules.py, decoding.py, loop_watch.py, think_control.py,
token_choice.py, think_response.py. Own decoding of plain decoder layers: folded_weights.py, kv_cache.py, decoder.py,
memory.py, continuous_batching.py. All other models: with_transformers.py. The choice: generate.py. On an
export: with_vllm.py. Requests that arrive at any time, each with its own settings: choice_by_settings.py, engine.py;
their responses while they are written: sections.py.
"""
