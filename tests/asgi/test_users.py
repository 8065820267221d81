"""Two users and an anonymous one: each way to start a run, and each way to reach it."""

from __future__ import annotations

import json
from typing import Any, cast

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sse_bridge import ConfigurationError, RunInfo, SSEBridge
from tests.support.asgi import Page
from tests.support.site import Site, never, site, visit
from tests.support.work import ScriptedWork, exit_frame, stdout

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

STARTS = ["GET", "POST", "201", "start"]
WAYS = ["follow", "state", "resume", "resume by query", "delete"]
#: The token of a run that never was.
NO_RUN = "n" * 16


async def who(request: Request) -> str | None:
    """The user that a request's header names."""
    return request.headers.get("x-user")


async def same_team(request: Request, run: RunInfo) -> bool:
    """Allows users whose names begin alike; anonymous users reach anonymous runs."""
    return (request.headers.get("x-user") or "-")[0] == (run.owner or "-")[0]


def named(user: str | None) -> dict[str, str]:
    return {} if user is None else {"x_user": user}


async def start(it: Site, how: str, user: str | None, key: str | None = None) -> str:
    """Starts a run, and returns its token once it has printed a line."""
    if how == "start":
        return (await it.bridge.start(ScriptedWork(), owner=user, key=key)).token
    with_key = {} if key is None else {"idempotency_key": key}
    if how == "201":
        page = await it.answer("POST", prefer="respond-async", **with_key, **named(user))
        return str(json.loads(page.content)["run"])
    page = it.open(how, **with_key, **named(user))
    await page.until(lambda: page.content)
    return page.headers["sse-bridge-run"]


async def reach(it: Site, way: str, token: str, user: str | None, accept: str = "*/*") -> Page:
    """Sends a request for a run, and waits for the beginning of its answer."""
    headers = {"accept": accept, **named(user)}
    if way == "delete":
        page = it.open("DELETE", f"/{token}", **headers)
    elif way == "resume":
        page = it.open(seen=f"{token}.0", **headers)
    elif way == "resume by query":
        page = Page(headers={name.replace("_", "-"): value for name, value in headers.items()})
        page.scope["query_string"] = f"lastEventId={token}.0".encode()
        it.visit(page)
    else:
        page = it.open(path=f"/{token}", **{**headers, **({"accept": "application/json"} if way == "state" else {})})
    await page.until(lambda: len(page.sent) > 1)
    return page


def may(rule: str, owner: str | None, user: str | None) -> bool:
    """Whether the contract lets the user reach the owner's run."""
    if rule == "nothing":
        return True
    if rule == "identify":
        return owner is None or owner == user
    return (owner or "-")[0] == (user or "-")[0]


RULES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "identify": {"identify": who},
    "authorize": {"authorize": same_team},
    "both": {"identify": who, "authorize": same_team},
}


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("how", STARTS)
@pytest.mark.parametrize("owner", ["ann", None])
@pytest.mark.parametrize("user", ["ann", "alf", "bob", None])
async def test_the_users_that_reach_a_run(rule: str, how: str, owner: str | None, user: str | None) -> None:
    """The owner does, and everybody reaches an anonymous run. `authorize` decides instead where it is given.

    Without `identify`, each run that a request starts is anonymous.
    """
    async with site(grace=None, **RULES[rule]) as it:
        token = await start(it, how, owner)
        has_owner = "identify" in RULES[rule] or how == "start"
        allowed = may(rule, owner if has_owner else None, user)
        for way in WAYS:
            page = await reach(it, way, token, user)
            assert page.status == (404 if not allowed else 204 if way == "delete" else 200), way
        if not allowed:
            assert it.bridge.statistics().runs[0].is_over is False
        await it.bridge.shutdown()


@pytest.mark.parametrize("rule", ["identify", "both"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/event-stream"])
@pytest.mark.parametrize("refusals", ["status", "frame"])
@pytest.mark.parametrize("user", ["bob", None])
async def test_a_strangers_run_is_answered_like_a_run_that_never_was(
    rule: str, way: str, accept: str, refusals: str, user: str | None
) -> None:
    """Status, headers and body are the same but for the token that the request itself named."""
    async with site(grace=None, refusals=refusals, **RULES[rule]) as it:
        token = await start(it, "GET", "ann")
        strange = await reach(it, way, token, user, accept)
        unknown = await reach(it, way, NO_RUN, user, accept)
        messages = [str(page.sent).replace(token, NO_RUN) for page in (strange, unknown)]
        assert messages[0] == messages[1]
        assert b"run_unknown" in strange.content
        await it.bridge.shutdown()


@pytest.mark.parametrize("way", WAYS)
async def test_an_identify_that_refuses_says_nothing_about_runs(way: str) -> None:
    """A client without a login gets the application's refusal for every token."""

    async def only_users(request: Request) -> str:
        if "x-user" not in request.headers:
            raise HTTPException(401, "Log in.")
        return request.headers["x-user"]

    async with site(grace=None, identify=only_users) as it:
        token = await start(it, "GET", "ann")
        strange = await reach(it, way, token, None)
        unknown = await reach(it, way, NO_RUN, None)
        assert strange.status == 401
        assert strange.sent == unknown.sent
        await it.bridge.shutdown()


@pytest.mark.parametrize("rule", ["nothing", "identify", "both"])
@pytest.mark.parametrize("how", ["POST", "201", "start"])
@pytest.mark.parametrize("user", ["ann", "bob", None])
async def test_a_key_reaches_only_runs_of_its_own_identity(rule: str, how: str, user: str | None) -> None:
    """The same key of another user starts another run. Without `identify` the key alone decides."""
    async with site(grace=None, **RULES[rule]) as it:
        token = await start(it, how, "ann" if rule != "nothing" else None, key="k")
        for again in ("POST", "201"):
            shares = rule == "nothing" or user == "ann"
            assert (await start(it, again, user, key="k") == token) is shares
        await it.bridge.shutdown()


async def test_a_request_with_a_key_that_may_not_follow_its_run_is_told_that_there_is_none() -> None:
    """`authorize` is asked for runs found by their key, too."""

    async def refuse(request: Request, run: RunInfo) -> bool:
        return False

    async with site(grace=None, identify=who, authorize=refuse) as it:
        await start(it, "POST", "ann", key="k")
        for headers in ({}, {"prefer": "respond-async"}):
            page = await it.answer("POST", idempotency_key="k", **headers, **named("ann"))
            assert (page.status, page.error["code"]) == (404, "run_unknown")
        await it.bridge.shutdown()


async def test_authorize_is_told_whose_run_it_is() -> None:
    """It gets the owner, the source, the state and the time of the start."""
    seen: list[RunInfo] = []

    async def note(request: Request, run: RunInfo) -> bool:
        seen.append(run)
        return True

    work = ScriptedWork(command="make")
    async with site(work, identify=who, authorize=note) as it:
        token = await start(it, "GET", "ann")
        await reach(it, "follow", token, "bob")
        work.feed(stdout("a"), exit_frame())
        work.finish()

    (info,) = seen
    assert (info.token, info.owner, info.source, info.state) == (token, "ann", work, "running")
    assert info.started_at > 1_700_000_000
    assert token not in repr(info)


@pytest.mark.parametrize("value", [7, b"ann", True, ("ann",)])
@pytest.mark.parametrize("name", ["identify", "key"])
async def test_identities_and_keys_are_strings(name: str, value: object) -> None:
    """A number would differ from every name. The request fails before work starts."""

    async def returns(request: Request) -> Any:
        return value

    bridge = SSEBridge(None, never, **{name: returns})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"{name} must return a string or None, not {type(value).__name__}"):
        await visit(bridge)


@pytest.mark.parametrize("name", ["identify", "key", "authorize"])
async def test_an_exception_of_the_applications_reaches_the_server(name: str) -> None:
    """The server logs it with a note that says what was asked. The run goes on, and the request counts as over."""

    async def fails(*arguments: object) -> Any:
        if arguments[0].headers.get("x-fail"):  # type: ignore[attr-defined]
            raise LookupError("no database")
        return None if name != "authorize" else True

    work, functions = ScriptedWork(), {name: fails}
    async with site(work, **cast(Any, functions)) as it:
        page, token = await it.started()
        path = "/" if name == "key" else f"/{token}"
        with pytest.raises(LookupError, match="no database") as raised:
            await visit(it.bridge, Page(path=path, headers={"X-Fail": "1"}))
        assert raised.value.__notes__ == [f"The application's {name} raised this, which sse_bridge asked about a GET."]
        work.feed(exit_frame())
        work.finish()
        await page.until(lambda: page.ended)
        before = anyio.current_time()
        await it.bridge.shutdown()
        assert anyio.current_time() == before


async def test_an_empty_identity_is_an_identity() -> None:
    """This is the strict reading: such a run has an owner, and a user with a name is a stranger."""
    async with site(grace=None, identify=who) as it:
        token = await start(it, "GET", "")
        assert (await reach(it, "state", token, "ann")).status == 404
        assert (await reach(it, "state", token, None)).status == 404
        assert (await reach(it, "state", token, "")).status == 200
        await it.bridge.shutdown()
