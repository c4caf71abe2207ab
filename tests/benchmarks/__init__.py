"""What a step costs: our side of the workloads that peers are measured with.

    python -m tests.benchmarks            all that this machine has
    BENCH_ONLY="w1-sqlite w3-postgresql"  picks
    BENCH_OUT=rows.jsonl                  appends each figure as a JSON line: peer, metric, value, unit

W1: 200 runs of 10 steps at once, and one run of 10 steps alone. W2: 100 parallel steps and their join. W3: one run of
100, 500 and 1000 steps. W4: 500 WebSockets on one run, by the time from an emit to the last of them. One worker in the
process that triggers; each step returns `{"i": n, "pad": 200 bytes}`.
Absolute figures are of the machine; compare them within one run only.
"""
