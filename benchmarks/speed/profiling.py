"""The time of profiled steps by group of operations, from torch.profiler's times."""

from typing import Any

from benchmarks.speed.limit import read_config

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "addmm_", "_addmm_activation", "mkldnn_linear")
ATTENTION = ("scaled_dot_product", "_attention_", "flash", "varlen", "flex", "_softmax")
ELEMENTWISE = (
    "add", "sub", "mul", "div", "neg", "exp", "silu", "sigmoid", "pow", "rsqrt", "mean", "sum", "copy_", "cat", "where",
    "fill_", "zero_", "logsumexp", "softmax", "index", "gather", "scatter", "native_layer_norm", "rms", "amax", "clone",
    "_to_copy", "square", "embedding",
)  # fmt: skip


def group_of(name: str, shapes: Any, vocabulary: int) -> str:
    bare = name.removeprefix("aten::")
    if any(part in name for part in ATTENTION):
        return "attention"
    if "CrossEntropy" in name or "LogProb" in name:
        return "elementwise, logits"
    if "BeforeAttention" in name or "AfterAttention" in name:  # of this project; their kernels are written in Triton
        return "elementwise, body"
    if "adam" in name.lower() or "foreach" in name or "Optimizer" in name or "linalg_vector_norm" in name:
        return "optimizer and clipping"
    if bare in PRODUCTS:
        sizes = {size for shape in shapes or [] for size in (shape if isinstance(shape, list) else [])}
        return "products, head" if vocabulary in sizes else "products, body"
    if any(bare.startswith(start) for start in ELEMENTWISE):
        sizes = {size for shape in shapes or [] for size in (shape if isinstance(shape, list) else [])}
        return "elementwise, logits" if vocabulary in sizes else "elementwise, body"
    return "other"


def groups(profiler: Any, task: dict[str, Any]) -> dict[str, float]:
    """Return group -> seconds of all profiled steps, on the GPU if there is one, else on the host.

    On CUDA a kernel counts for the operation that started it.
    """
    vocabulary, cuda = read_config(task["model"])["vocab_size"], task["device"] == "cuda"
    found: dict[str, float] = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        if cuda and "CPU" not in str(event.device_type):
            continue
        micro = event.self_device_time_total if cuda else event.self_cpu_time_total
        group = group_of(event.key, event.input_shapes, vocabulary)
        found[group] = found.get(group, 0.0) + micro / 1e6
    return {name: round(s, 4) for name, s in sorted(found.items(), key=lambda item: -item[1])}
