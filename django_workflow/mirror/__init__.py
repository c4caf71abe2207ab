"""Hosted mode: the rows that this site keeps of runs that live in another engine, and what waits to be sent to it."""
