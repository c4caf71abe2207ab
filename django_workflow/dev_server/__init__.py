"""A development server for clients in any language: it stands in for `qstash dev`, and needs no Django project.

`__main__` reads the options, takes the port and a place for the data, configures Django in code, and hands over to
`serving`, which runs the engine's HTTP API and one worker in this process until it is told to stop.
"""
