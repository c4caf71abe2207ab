"""Apps that a project adds to INSTALLED_APPS when it wants what they do, each with an extra of its own."""
