"""From a prompt to thoughts and an answer.

In: ids of prompts. Out: a ThinkResponse for each prompt.

Files: think_response.py, generate.py.
"""
