"""The proxy tests' way to start an agent serves here as well."""

from tests.proxy.conftest import make_hub, start_agent

__all__ = ["make_hub", "start_agent"]
