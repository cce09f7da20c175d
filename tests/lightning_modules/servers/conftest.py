"""A tuner with random adapters. Tests of vLLM's own code are collected only where vLLM is in reach."""

from importlib.util import find_spec

from tests.lightning_modules.export.conftest import trained

__all__ = ["trained"]
collect_ignore = [] if find_spec("vllm") else ["test_vllm_serving.py"]  # test_on_vllm.py puts it in reach
