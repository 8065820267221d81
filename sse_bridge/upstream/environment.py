"""What the environment says about connections: the proxies to use, and the certificates to trust.

The variables are httpx's, and mean what they mean to httpx; the tests compare the two, case by case. httpx itself
ignores proxies once it is given a transport, and what it raises for a value that it cannot use names no variable.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from urllib.request import getproxies

import httpx

from ..errors import ConfigurationError
from .checks import has_usable_port

__all__ = ["mounts", "tls_context"]

#: What `ssl` and httpx read when they make a TLS context. The first of the two sources of certificates wins.
_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
#: The names that OpenSSL looks certificates up by, in a folder.
_HASHED: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_TLS_VARIABLES: Final = (*_CERTIFICATES, "SSLKEYLOGFILE")

Transport = httpx.AsyncBaseTransport


def tls_context() -> ssl.SSLContext:
    """httpx's TLS context, with the certificates that the environment names.

    Raises:
        ConfigurationError: it cannot be made.
    """
    variable = next((name for name in _CERTIFICATES if os.environ.get(name)), None)
    if variable is not None and (fault := _FAULTS[variable](os.environ[variable])):
        raise ConfigurationError(
            f"{variable} names {fault} ({os.environ[variable]!r}). Name the certificates of the authorities to trust, "
            "or unset it to trust those that come with httpx."
        )
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:  # `ssl.SSLError` is an `OSError`
        names = " and ".join(name for name in _TLS_VARIABLES if os.environ.get(name))
        raise ConfigurationError(
            f"TLS cannot be set up ({type(error).__name__}). Check {names or 'the package certifi'}: files have to be "
            "readable, and to hold certificates in the PEM format."
        ) from error


def _fault_of_file(path: str) -> str | None:
    return None if os.path.exists(path) else "a path that does not exist"


def _fault_of_folders(paths: str) -> str | None:
    """OpenSSL ignores folders that are missing, and files under other names, and then trusts no certificate."""
    if any(_HASHED.fullmatch(name) for path in paths.split(os.pathsep) for name in _names_in(path)):
        return None
    return "no folder with certificates under the names that `openssl rehash` gives them"


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


#: What is wrong with the value of each variable.
_FAULTS: Final = {"SSL_CERT_FILE": _fault_of_file, "SSL_CERT_DIR": _fault_of_folders}


def mounts(make: Callable[[httpx.Proxy], Transport]) -> dict[str, Transport | None]:
    """The transports for URLs that a proxy applies to, as httpx takes them; `None` for URLs that go without one.

    Args:
        make: makes the transport for a proxy.

    Raises:
        ConfigurationError: `NO_PROXY` cannot be read. A proxy that cannot be used raises it when a URL needs it.
    """
    proxies = getproxies()
    bypassed = [entry.strip() for entry in proxies.get("no", "").split(",")]
    if "*" in bypassed:
        return {}
    mounted: dict[str, Transport | None] = {
        f"{scheme}://": _proxied(_variable(scheme), proxies[scheme], make)
        for scheme in ("http", "https", "all")
        if proxies.get(scheme)
    }
    without = {_pattern(entry, number): None for number, entry in enumerate(bypassed, 1) if entry}
    return {**mounted, **without} if mounted else {}


def _pattern(entry: str, number: int) -> str:
    """An entry of `NO_PROXY` as a pattern of httpx's."""
    address = entry.partition("/")[0]  # of a network, httpx takes the first address for the only one
    pattern = f"all://*{entry}"
    if "://" in entry:
        pattern = entry
    elif _is_address(address):
        pattern = f"all://[{entry}]" if ":" in address else f"all://{entry}"
    elif entry.lower() == "localhost":
        pattern = f"all://{entry}"
    if not _is_url(pattern):
        raise ConfigurationError(
            f"Entry {number} of {_variable('no')} cannot be read. Separate hosts by commas, and write IPv6 addresses "
            "without brackets and ranges, such as ::1."
        )
    return pattern


def _is_url(text: str) -> bool:
    """Whether httpx can read the URL. Its host is decoded when it is asked for."""
    try:
        return httpx.URL(text).host is not None
    except (httpx.InvalidURL, ValueError):
        return False


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _proxied(variable: str, value: str, make: Callable[[httpx.Proxy], Transport]) -> Transport:
    """The transport through a proxy, or one that says why there is none."""
    try:
        proxy = httpx.Proxy(value if "://" in value else f"http://{value}")
        if proxy.url.host and has_usable_port(proxy.url):
            return make(proxy)
        cause: Exception | None = None
    except ImportError as error:
        return _Unusable(
            f"{variable} names a SOCKS proxy, which needs the package socksio: pip install 'httpx[socks]'. Or unset "
            f"{variable}, or name the hosts that need no proxy in NO_PROXY.",
            error,
        )
    except (httpx.InvalidURL, ValueError) as error:
        cause = error
    return _Unusable(
        f"{variable} is not the address of a proxy that httpx can use. Write it as http://proxy.example:3128 (https, "
        "socks5 or socks5h are possible, too), or unset it.",
        cause,
    )


class _Unusable(Transport):
    """Raises the error for each URL that needs it: those that a broken proxy does not apply to go without."""

    def __init__(self, message: str, cause: Exception | None) -> None:
        self._message = message
        self._cause = cause

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise ConfigurationError(self._message) from self._cause


def _variable(scheme: str) -> str:
    """How the variable is spelled in the environment. `urllib` prefers lower case."""
    name = f"{scheme}_proxy"
    found = sorted((one for one in os.environ if one.lower() == name and os.environ[one]), reverse=True)
    return found[0] if found else f"{name.upper()} (or the system's own setting)"
