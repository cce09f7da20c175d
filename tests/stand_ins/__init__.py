"""Stand-ins for the real inputs: rows with the shapes of R1's answers, a base with Qwen's, and a hub on loopback.

rows.py     generated rows, as Magpie-Reasoning-V2 has them
base.py     a model folder with Qwen's vocabulary size, control tokens and chat template; random weights
hub.py      a server that huggingface_hub, datasets and transformers take for the hub, with faults
recipe.py   the ids of configs/multi_think.yaml on that hub
"""
