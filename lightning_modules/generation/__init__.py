"""From a prompt to thoughts and an answer.

In: ids of prompts. Out: a ThinkResponse for each prompt.

Files: thinking_settings.py, token_text.py, thinking_rules.py, decoding.py, loop_watch.py, think_control.py,
token_choice.py, think_response.py, with_transformers.py, generate.py.
"""
