"""The command ``lhttp``."""
