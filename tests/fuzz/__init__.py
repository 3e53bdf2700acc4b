"""Programs that feed the server what nobody thought of; see CONTRIBUTING.md."""
