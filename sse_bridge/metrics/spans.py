"""A span for each run."""

from __future__ import annotations

from contextvars import Token
from typing import Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from ..relay.info import Outcome, RunInfo
from ..relay.observer import name_of, source_of
from ..relay.watching import Watcher

__all__ = ["Spans"]

#: Endings that are no failures: the command's success, a stream that was over, and what users and operators do.
_FINE: Final = frozenset({"exit_zero", "ended", "upstream_finished", "cancelled", "abandoned", "server_stopped"})


class Spans(Watcher):
    """Makes a span for each run of a bridge, and a trace for each span.

    The run outlives the request that starts it, and other requests follow it. So its span has no parent, but a link to
    the span of that request, as messages have to the span that sent them.

    Args:
        tracer: makes the spans.
        bridge: the bridge's name.
    """

    def __init__(self, tracer: Tracer, bridge: str) -> None:
        self._tracer = tracer
        self._bridge = bridge
        self._open: dict[str, tuple[Span, Token[Context]]] = {}

    def began(self, run: RunInfo) -> None:
        """See `Watcher.began`. The span is the current one until the end, for the log and for instrumented clients."""
        asked = trace.get_current_span().get_span_context()
        span = self._tracer.start_span(
            "sse_bridge.run",
            context=Context(),
            kind=SpanKind.INTERNAL,
            links=[Link(asked)] if asked.is_valid else [],
            attributes={
                "sse_bridge.bridge": self._bridge,
                "sse_bridge.run": name_of(run.token),
                "sse_bridge.source": "" if run.source is None else source_of(run.source),
            },
        )
        self._open[run.token] = span, context.attach(trace.set_span_in_context(span))

    def started(self, run: RunInfo) -> None:
        """See `Watcher.started`."""
        self._add(run, "sse_bridge.started")

    def resumed(self, run: RunInfo, *, exactly: bool) -> None:
        """See `Watcher.resumed`."""
        self._add(run, "sse_bridge.resumed")
        if not exactly:
            self._add(run, "sse_bridge.gap", {"sse_bridge.reason": "interrupted"})

    def discarded(self, run: RunInfo, size: int) -> None:
        """See `Watcher.discarded`."""
        self._add(run, "sse_bridge.gap", {"sse_bridge.reason": "discarded", "sse_bridge.bytes": size})

    def ending(self, run: RunInfo) -> None:
        """See `Watcher.ending`."""
        self._add(run, "sse_bridge.cancel")

    def ended(self, run: RunInfo, outcome: Outcome) -> None:
        """See `Watcher.ended`. A command that fails is an error, as OpenTelemetry has it for programs."""
        found = self._open.pop(run.token, None)
        if found is None:  # it began before it was watched
            return
        span, attached = found
        span.set_attributes({"sse_bridge.outcome": outcome.kind, **_facts(outcome)})
        if outcome.kind not in _FINE:
            span.set_attribute("error.type", outcome.kind)
            span.set_status(StatusCode.ERROR, outcome.kind)
        span.end()
        context.detach(attached)

    def _add(self, run: RunInfo, event: str, attributes: dict[str, AttributeValue] | None = None) -> None:
        if run.token in self._open:
            self._open[run.token][0].add_event(event, attributes)


def _facts(outcome: Outcome) -> dict[str, AttributeValue]:
    facts: dict[str, AttributeValue] = {"sse_bridge.lines": outcome.lines, "sse_bridge.bytes": outcome.bytes}
    if outcome.exit_code is not None:
        facts["process.exit.code"] = outcome.exit_code
    if outcome.cancelled is not None:
        facts["sse_bridge.result"] = outcome.cancelled.value
    return facts
