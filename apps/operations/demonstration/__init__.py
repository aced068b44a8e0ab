"""Large installations that look like real ones, for benchmarks, tests of pages, and whoever wants to try OpsMap."""
