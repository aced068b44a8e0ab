"""Where checks and native commands may connect to (`checks.allowed_hosts`), and connecting to just what was checked.

A name is looked up once. Each address it has is judged, and the connection goes to such an address, not to the name:
a second lookup could have another answer. Nobody follows redirects here, so one look is enough.

Clouds give a machine's credentials to whoever asks from that machine, at addresses of their own. An agent that
connects where it is told would hand them out; so these addresses are closed, whatever name or spelling leads there,
unless an entry of the list is such an address, or a network within them.
"""

from __future__ import annotations

import asyncio
import fnmatch
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from opsmap_agent.commands.refusals import RejectedError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name, as text. Raises OSError."""

_LOCAL_ADDRESSES = ("127.0.0.1", "::1")
_MAX_ADDRESSES = 16

_METADATA: tuple[IPNetwork, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, with 169.254.169.254 of nearly all clouds
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS
        "fd20:ce::/32",  # Google Cloud
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


async def system_lookup(host: str, port: int) -> list[str]:
    """By the host's own resolver, which also reads spellings like 0xa9fea9fe and 2852039166."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (UnicodeError, OverflowError) as error:
        raise OSError(f"not an address: {host[:80]}:{port} ({error})") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Reach:
    """The rules of one configuration. `lookup` is for tests that play a resolver."""

    def __init__(self, allowed_hosts: Sequence[str] = (), lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._is_open = not allowed_hosts
        self._networks: list[IPNetwork] = []
        self._names: list[str] = []
        for entry in allowed_hosts:
            network = _as_network(entry)
            if network is None:
                self._names.append(_normal(entry))
            else:
                self._networks.append(network)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where to connect for `host`: those of its addresses that are allowed, in the resolver's order.

        "localhost" is IPv4 and then IPv6, whatever the host's name tables say.

        Raises:
            RejectedError: none is allowed.
            OSError: it has none.
        """
        found = _LOCAL_ADDRESSES if _normal(host) == "localhost" else await self._find(host, port)
        is_named = any(fnmatch.fnmatchcase(_normal(host), name) for name in self._names)
        allowed = [address for address in found if self._may_connect(address, is_named=is_named)]
        if found and not allowed:
            raise RejectedError(self._refusal(host, found[0]))
        return allowed[:_MAX_ADDRESSES]

    async def _find(self, host: str, port: int) -> Sequence[str]:
        if as_address(host) is not None:
            return (host,)
        return await self._lookup(host, port)

    def _may_connect(self, text: str, *, is_named: bool) -> bool:
        address = as_address(text)
        if address is None:
            return False
        meant = embedded(address)
        if any(_within(one, _METADATA) for one in meant):
            own_entries = [network for network in self._networks if _is_metadata(network)]
            return all(_within(one, own_entries) for one in meant if _within(one, _METADATA))
        return self._is_open or is_named or any(_within(one, self._networks) for one in meant)

    def _refusal(self, host: str, address: str) -> str:
        shown = host[:200] if host == address else f"{host[:200]} ({address})"
        parsed = as_address(address)
        if parsed is not None and any(_within(one, _METADATA) for one in embedded(parsed)):
            return (
                f"connecting to {shown} is refused: clouds keep the credentials of machines at such addresses; "
                "an entry in checks.allowed_hosts for the address itself would allow it"
            )
        return f"connecting to {shown} is not allowed by checks.allowed_hosts"


def as_address(text: str) -> IPAddress | None:
    """An address in its usual spelling, also with a zone (fe80::1%eth0) or in brackets."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def embedded(address: IPAddress) -> list[IPAddress]:
    """The address, and the IPv4 address that it stands for if the network translates it."""
    meant: list[IPAddress] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inside = address.ipv4_mapped or address.sixtofour
        if inside is None and (address in _IPV4_COMPATIBLE or any(address in prefix for prefix in _NAT64)):
            inside = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.teredo is not None:
            inside = address.teredo[1]
        if inside is not None and not address.is_loopback:
            meant.append(inside)
    return meant


def _within(address: IPAddress, networks: Sequence[IPNetwork]) -> bool:
    return any(address in network for network in networks)


def _is_metadata(network: IPNetwork) -> bool:
    """Whether an entry is about these addresses alone: 0.0.0.0/0 is not meant to open them."""
    return any(
        network.version == closed.version
        and closed.network_address <= network.network_address  # type: ignore[operator]  # of the same version
        and network.broadcast_address <= closed.broadcast_address  # type: ignore[operator]
        for closed in _METADATA
    )


def _as_network(entry: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(entry.strip().strip("[]"), strict=False)
    except ValueError:
        return None


def _normal(name: str) -> str:
    return name.strip().casefold().removesuffix(".")
