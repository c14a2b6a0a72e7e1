"""Fixtures live in plugin modules, one for each concern, so that a reader finds them by name."""

pytest_plugins = ["tests.servers", "tests.harness", "tests.escrowkit"]
