"""Authoring: what people write workflows with. Loads no models, so it is safe before apps are loaded."""
