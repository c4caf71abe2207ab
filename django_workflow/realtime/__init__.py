"""Live updates: stored events reach browsers by WebSocket or polling.

`relay` hears that events were committed and wakes every process's `feed`; the feed reads them from the store through
`history`; `consumers` and `views` hand them to those whom `access` lets in, in the forms of `messages`. The store is
the truth: an announcement that is lost delays an event until the next poll of the store, and loses nothing.
"""
