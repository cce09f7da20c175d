"""A tuner with random adapters."""

from tests.lightning_modules.export.conftest import trained

__all__ = ["trained"]
