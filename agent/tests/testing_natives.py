"""Running native commands as a command of the backend would."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opsmap_agent.configuration import NativeCommands
from opsmap_agent.native import NativeContext, Natives
from opsmap_agent.native.registry import NativeAnswer


@dataclass
class RunNative:
    """`await native("file_stat", path="/")` is its result. What this host may do is changed by `switches`."""

    context: NativeContext
    switches: NativeCommands = field(default_factory=lambda: NativeCommands(process_kill=True))

    async def __call__(self, command: str, /, **params: Any) -> Any:
        return (await self.answer(command, **params)).result

    async def answer(self, command: str, /, **params: Any) -> NativeAnswer:
        """With its remark."""
        return await self.natives().run(command, params, 60.0)

    async def within(self, limit_s: float, command: str, /, **params: Any) -> Any:
        return (await self.natives().run(command, params, limit_s)).result

    def natives(self) -> Natives:
        return Natives(self.context, self.switches)
