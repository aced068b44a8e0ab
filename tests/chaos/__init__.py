"""`make chaos`: everything is killed, cut, frozen, filled up and lied to at every step of a command's way.

In the order in which one reads it:

- `faults` lists what can go wrong, `trial` is how one of them is carried out, `load` the commands on their way then
- `steps` names the places in the product where a process can die, `hooks` puts them there, `triggers` sets them off;
  `daemon` runs a process of the product with all that, `shim` and `clock` are two special cases
- `network` holds what lies between the processes: `relay` carries bytes badly, `meddler` carries frames like a villain
- `site` is a whole installation (tests/world) made of these, `runner` runs trials on it
- `ledger` is what the hosts really executed, `checker` the judge; `planted` proves, with `plants`, that he can see

A trial is known by its seed and its number: `make chaos ARGS="--seed 7 --only kill-agent-launch-after"`.
"""
