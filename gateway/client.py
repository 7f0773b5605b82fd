"""Whence an order comes, for risk's blacklist: the client's address and the networks that it is in."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from domain.saga import Client

if TYPE_CHECKING:
    from gateway.call import Call

# how wide a network may be listed: a house, a provider's range; one client may have all of a /64
PREFIXES = {4: (24, 16), 6: (64, 48)}


def client_of(call: Call) -> Client | None:
    """None for staff and machines: they work from the bank's own networks."""
    if call.caller.privileged:
        return None
    addresses = addresses_of(call.origin.partition(" ")[0])
    return Client(addresses=addresses, iban="", countries=()) if addresses else None


@lru_cache(maxsize=10_000)
def addresses_of(text: str) -> tuple[str, ...]:
    """An address, as the blacklist writes it, and its networks; nothing of what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ()
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    networks = [
        ipaddress.ip_network(f"{address}/{prefix}", strict=False)
        for prefix in PREFIXES[address.version]
    ]
    return (str(address), *map(str, networks))


def listed_address(text: str) -> str | None:
    """An address or a network as the blacklist writes it; None for another, or too wide, one."""
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        return None
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return str(network) if network.prefixlen in PREFIXES[network.version] else None
