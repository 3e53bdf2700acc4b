"""The servers that lhttp_tx is measured against, each the shortest program that does the same."""
