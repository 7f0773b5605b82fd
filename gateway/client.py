"""Whence an order comes and where outside the bank it goes, for risk's blacklist.

A card's or an IBAN's number is kept nowhere: an IBAN is listed, and known again, by its keyed hash.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

from domain.payment_methods import MethodKind, method_key, owner_of
from domain.saga import Client

if TYPE_CHECKING:
    from gateway.call import Call

# how wide a network may be listed: a house, a provider's range; one client may have all of a /64
PREFIXES = {4: (24, 16), 6: (64, 48)}


async def client_of(call: Call, method_id: str | None) -> Client | None:
    """None where nothing is to be looked at. Staff and machines work from the bank's own networks."""
    addresses = () if call.caller.privileged else addresses_of(call.origin.partition(" ")[0])
    iban, countries = await _method(call, method_id) if method_id is not None else ("", ())
    if not (addresses or iban or countries):
        return None
    return Client(addresses=addresses, iban=iban, countries=countries)


async def _method(call: Call, method_id: str) -> tuple[str, tuple[str, ...]]:
    """What a payment method is listed by, and its country."""
    row = await call.gateway.queries.row("payment", owner_of(method_id), method_key(method_id))
    if row is None:
        return "", ()  # payment will refuse it
    iban = row["fingerprint"] if row["kind"] == MethodKind.IBAN else ""
    return iban, (row["country"],) if row["country"] else ()


def of_number(secret: str, number: str) -> str:
    """Tells the same number again, and nobody without the secret which one it is."""
    return hmac.new(secret.encode(), number.encode(), hashlib.sha256).hexdigest()


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


def one_client(remote: str | None) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one, all of which one client may have."""
    networks = addresses_of(remote or "")
    if not networks:
        return remote or "-"
    return networks[0] if ":" not in networks[0] else networks[1]


def listed_address(text: str) -> str | None:
    """An address or a network as the blacklist writes it; None for another, or too wide, one."""
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        return None
    if network.prefixlen == network.max_prefixlen:
        return addresses_of(str(network.network_address))[0]  # as an order's address is written
    return str(network) if network.prefixlen in PREFIXES[network.version] else None
