"""How a request is refused: MIOSA's error envelope, and the middleware for request ids and the key.

Independent of sandboxes. The codes are MIOSA's wherever it documents one.
"""

from __future__ import annotations

import hmac
import math
import secrets
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "ApiError",
    "BearerKey",
    "RequestIds",
    "envelope",
    "error_frame",
    "invalid",
    "missing",
    "not_found",
    "not_paused",
    "not_running",
    "on_api_error",
    "on_http_exception",
    "on_unexpected_error",
]

_REQUEST_ID: Final = "sse_bridge.sandbox.request_id"


class ApiError(Exception):
    """A refusal that the client gets as an error envelope.

    Args:
        status: the HTTP status.
        code: for programs.
        message: for people.
        details: facts about this refusal, or `None`.
        retryable: whether the same request may succeed later.
        retry_after_ms: milliseconds to wait before a retry; `None` if unknown.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: dict[str, object] | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


def invalid(message: str, *, field: str) -> ApiError:
    """The refusal of a value that is present but wrong."""
    return ApiError(422, "VALIDATION_ERROR", message, details={"field": field})


def missing(field: str) -> ApiError:
    """The refusal of a request that lacks a value."""
    return ApiError(400, "MISSING_PARAM", f"{field} is required", details={"field": field})


def not_found(what: str) -> ApiError:
    """The refusal of a request for something unknown."""
    return ApiError(404, "NOT_FOUND", f"{what} not found")


def not_running(state: str) -> ApiError:
    """The refusal of a request to a sandbox in another state than `running`."""
    return ApiError(409, "SANDBOX_NOT_RUNNING", f"the sandbox is {state}", details={"state": state})


def not_paused(state: str) -> ApiError:
    """The refusal to resume a sandbox that is neither paused nor stopped."""
    return ApiError(409, "SANDBOX_NOT_PAUSED", f"the sandbox is {state}", details={"state": state})


def error_frame(scope: Scope, error: ApiError) -> bytes:
    """The refusal as a frame, for a stream that has begun."""
    return b"event: error\ndata: " + bytes(envelope(scope, error).body) + b"\n\n"


def envelope(scope: Scope, error: ApiError) -> JSONResponse:
    """The answer to a request that is refused."""
    body: dict[str, object] = {
        "code": error.code,
        "message": error.message,
        "details": error.details or {},
        "request_id": scope.get(_REQUEST_ID),
        "retryable": error.retryable,
    }
    headers = {}
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
        # The header takes whole seconds (RFC 9110, 10.2.3): later rather than too early.
        headers["retry-after"] = str(math.ceil(error.retry_after_ms / 1000))
    return JSONResponse({"ok": False, "error": body}, status_code=error.status, headers=headers)


async def on_api_error(request: Request, error: Exception) -> JSONResponse:
    """Turns an `ApiError` into its envelope."""
    assert isinstance(error, ApiError)
    return envelope(request.scope, error)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Turns the router's refusals (404, 405) into envelopes and keeps the router's headers."""
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name
    response = envelope(request.scope, ApiError(error.status_code, code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def on_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    """Answers a bug of ours without its details; the server logs them."""
    response = envelope(request.scope, ApiError(500, "INTERNAL_ERROR", "internal error", retryable=True))
    # Starlette sends this response from outside all other middleware, past `RequestIds`.
    response.headers["x-request-id"] = request.scope.get(_REQUEST_ID, "")
    return response


class RequestIds:
    """Gives every request an id, and names it in a header of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_REQUEST_ID] = request_id = f"req_{secrets.token_hex(8)}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class BearerKey:
    """Refuses requests without the key in `Authorization: Bearer <key>`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or self._is_right(Headers(scope=scope).get("authorization", "")):
            await self._app(scope, receive, send)
            return
        response = envelope(scope, ApiError(401, "invalid_token", "missing or invalid API key"))
        response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _is_right(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        # Starlette decodes headers as latin-1; encoding restores the client's own bytes.
        given = token.strip().encode("latin-1")
        return scheme.lower() == "bearer" and hmac.compare_digest(given, self._key)
