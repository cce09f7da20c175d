"""A packed sequence through decoder layers and attention, with less memory and in less time.

In: hidden states of a packed sequence, and a PackedForward that says where its rows begin. Out: the hidden states after
each layer, equal to those of transformers' layers.

Files: packed_forward.py, elementwise.py, triton_kernels.py, lora_linear.py, flash_kernels.py, varlen_attention.py,
decoder_layer.py, patch_layers.py.
"""
