"""The audit: what a model should not be looking at, proved, and whether it may ship."""
