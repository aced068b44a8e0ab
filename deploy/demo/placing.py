"""Where the demonstration's databases live and as whom they run: decided together with those of `make run`.

Called while rendering, in the supervisor, because the processes themselves should not load what this needs.
"""

from __future__ import annotations

import os
from pathlib import Path

from deploy.demo.components import COMPONENTS, Kind
from deploy.demo.settings import Account, Settings
from deploy.embedded.binaries import Binaries
from deploy.embedded.placement import place
from deploy.embedded.state import StateFolder


def decide_settings(state: Path, ports: dict[str, int]) -> Settings:
    """The settings for `state`, which is the folder `demo/run` of a state folder of `make run`; makes missing folders.

    An ordinary user has everything below `state`. For root the same holds if the unprivileged user can get
    there, and else the data go where those of `make run` went (and go away with them): no existing
    permissions are widened.

    Raises:
        PlacementError, ServiceError: there is no place, or there are no binaries; the text says what to do.
        ValueError: the unprivileged user cannot reach `state`.
    """
    embedded = StateFolder(state.resolve().parents[1])
    placement = place(embedded, Binaries.installed(), environment=os.environ)
    # Sockets are for the servers of `make run`; these here have none.
    for folder in placement.temporary:
        folder.rmdir()
    data = state if placement.home == embedded.path else placement.home / "demo"
    databases = [data / component.name for component in COMPONENTS.values() if component.kind is not Kind.SERVICE]
    embedded.with_folders(state.parent, state, data, *databases)
    account = placement.account
    if account is not None and not account.can_enter(data):
        raise ValueError(
            f"user '{account.name}' cannot reach {data}: a folder above it is private; remove {state.parent}"
        )
    return Settings(
        ports=ports,
        data=data,
        postgres_bin=placement.binaries.postgres_bin,
        valkey_server=placement.binaries.valkey_server,
        account=None if account is None else Account(account.uid, account.gid),
    )
