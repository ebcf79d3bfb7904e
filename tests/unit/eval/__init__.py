# A package, so that its conftest is a module of its own beside the one of tests/integration.
