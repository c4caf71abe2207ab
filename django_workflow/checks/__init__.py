"""System checks: one id per rule, each with what is wrong, what to do, and where that is told in full.

`configuration` looks at DJANGO_WORKFLOW, `hosted` at the hosted engine's part of it, `project` at the settings around
it and at what was found in the code, `databases` into the databases (only where Django is told to: `migrate`,
`check --database default`), `deployment` at what matters with several processes (`check --deploy`). Importing this
registers them.
"""

from django_workflow.checks import configuration, databases, deployment, hosted, project

__all__ = ["configuration", "databases", "deployment", "hosted", "project"]
