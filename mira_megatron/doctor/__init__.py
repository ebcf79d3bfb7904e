"""The preflight: what wastes GPU hours, found before they are spent."""
