"""From a prompt to thoughts and an answer.

In: ids of prompts. Out: a ThinkResponse for each prompt.

Files: decoding.py, think_response.py, token_choice.py, with_transformers.py, generate.py.
"""
