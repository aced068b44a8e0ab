"""OpsMap on one machine: real PostgreSQL and Valkey, and every OpsMap process, under one small supervisor.

`make run`, `make test` and the benchmarks go through `python -m deploy.embedded`. It needs only the standard
library and psutil and imports nothing of OpsMap, so that it can start, watch and stop any version of it.
"""
