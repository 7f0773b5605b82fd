"""Which addresses the bank may call for others: public ones, over HTTPS.

A URL is looked at when it is given (`refusal`, `resolved`) and the address itself once more when a
connection to it is made (`public_socket`): a name that means another machine by then does not help.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

URL_CHARACTERS = 2_000
RESOLVE_S = 3.0
NAT64 = IPv6Network("64:ff9b::/96")
# of no use to anybody, which Python 3.11 does not know: the relays of 6to4 (RFC 7526), documentation (RFC 9637)
SPECIAL = (IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))


class Private(OSError):
    """The address is none that may be called."""


def is_public(address: str) -> bool:
    """True for an address of the internet at large; also one that only wraps an IPv4 address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner = _wrapped(found)
    if inner is not None:
        return is_public(str(inner))
    if isinstance(found, IPv6Address) and found.is_site_local:
        return False
    return (
        found.is_global
        and not found.is_multicast
        and not found.is_reserved
        and not any(found in network for network in SPECIAL if network.version == found.version)
    )


def _wrapped(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def refusal(url: str, *, private_allowed: bool) -> str | None:
    """Why a URL may not be called, as far as it says itself; None: it may."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "is no URL"
    if len(url) > URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        return f"is no URL of at most {URL_CHARACTERS} plain characters"
    if parts.scheme not in (("https", "http") if private_allowed else ("https",)):
        return "must begin with https://"
    if not host or port == 0:
        return "names no host"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "has a user, a password or a fragment, which have no place in it"
    if private_allowed:
        return None
    if ":" in host or host.replace(".", "").isdecimal():  # an address, be it an odd one
        return None if is_public(host) else "is not public"
    return None


async def resolved(url: str, *, private_allowed: bool) -> str | None:
    """Why the addresses that a URL's name means now may not be called; None: they may."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(
                parts.hostname, parts.port or 443, type=socket.SOCK_STREAM
            )
    except (OSError, UnicodeError, TimeoutError):
        return "names a host that is not known"
    if private_allowed or all(is_public(str(entry[4][0])) for entry in found):
        return None
    return "is not public"


def public_socket(entry: Any) -> socket.socket:
    """A socket for one address that a name meant, as aiohttp is about to connect to it."""
    family, kind, protocol, _, address = entry
    if not is_public(str(address[0])):
        raise Private("the address is not public")
    return socket.socket(family, kind, protocol)
