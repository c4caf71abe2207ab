"""How runs are found, read and put into words: the same in the admin, the API and the commands."""
