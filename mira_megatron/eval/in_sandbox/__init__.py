"""What runs inside the sandbox: standard library only, and nothing there is trusted."""
