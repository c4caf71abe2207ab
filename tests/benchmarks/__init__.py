"""What a step costs: our side of the workloads that peers are measured with.

    python -m tests.benchmarks            the default parts, in a few minutes
    python -m tests.benchmarks --list     all parts
    BENCH_ONLY="sqlite admin-postgresql"  picks parts
    BENCH_WORKLOADS="w1 w3"               picks workloads within them
    BENCH_MINUTES=9                       begins no part after so long
    BENCH_OUT=rows.jsonl                  appends each figure as a JSON line: peer, metric, value, unit
    PEERS=folder python -m tests.benchmarks.peers    beside the peers, in turn, by their harness

W1: 200 runs of 10 steps at once, and one run of 10 steps alone. W2: 100 parallel steps and their join. W3: one run of
100, 500 and 1000 steps. W4: 1000 runs that sleep 5 s, by how late they wake. W5: 200 waiting runs, 200 events at once,
from the event to the end of its run. Each step returns `{"i": n, "pad": 200 bytes}`. "In process" means that deliveries
stay in the worker's process, which also triggers; over HTTP the workflows are served by one process of a web server.
Absolute figures are of the machine; compare them within one run only.
"""
