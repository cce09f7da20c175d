"""Stand-ins for the real inputs: rows with the shapes of R1's answers, a base with Qwen's, and a hub on loopback.

rows.py     generated rows in the format of Magpie-Reasoning-V2
base.py     a model folder with Qwen's vocabulary size, control tokens and chat template; random weights
hub.py      a server in place of the hub for huggingface_hub, datasets and transformers, with faults
recipe.py   the ids of configs/multi_think.yaml on that hub
"""
