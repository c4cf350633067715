"""Runs a script of Envoy's Lua filter in LuaJIT, with stream handles and a clock of the test's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

lupa = pytest.importorskip("lupa.luajit21", reason="not every wheel of lupa brings LuaJIT")

_PRELUDE = """
local real = require("ffi")
clock = { now = 0 }
package.loaded.ffi = setmetatable({
  C = setmetatable({
    clock_gettime = function(_, time)
      time.seconds, time.nanoseconds = math.floor(clock.now), (clock.now % 1) * 1e9
      return 0
    end,
  }, { __index = function(_, name) return real.C[name] end }),
}, { __index = real })
"""

_DRIVER = """
-- Envoy's LuaJIT has the pairs() of Lua 5.2, which asks the value itself.
function pairs(value)
  local meta = getmetatable(value)
  if meta and meta.__pairs then return meta.__pairs(value) end
  return next, value, nil
end
function make_handle(stream, headers, trailers, chunks)
  local waited = 0
  local function map(values)
    -- What was taken from a handle is void once the script has waited, as in Envoy.
    local made = waited
    local function check() assert(made == waited, "object used outside of proper scope") end
    return setmetatable({
      get = function(_, name) check() return values[name] end,
      add = function(_, name, value) check() values[name] = value end,
      replace = function(_, name, value) check() values[name] = value end,
      remove = function(_, name) check() values[name] = nil end,
    }, { __pairs = function() check() return next, values, nil end })
  end
  local handle = { said = nil, headers_of = headers, body_of = nil }
  handle.timestamp = function() return clock.now * 1000 end
  handle.bodyChunks = function()
    local index = 0
    return function()
      waited = waited + 1
      index = index + 1
      local text = chunks and chunks[index]
      return text and { length = function() return #text end,
        getBytes = function(_, from, count) return text:sub(from + 1, from + count) end }
    end
  end
  handle.body = function()
    waited = waited + 1
    return { setBytes = function(_, text) handle.body_of = text return #text end }
  end
  handle.headers = function() return map(headers) end
  handle.filterContext = function() return map(stream.context) end
  handle.logWarn = function(_, text) stream.warnings[#stream.warnings + 1] = text end
  handle.trailers = function()
    if trailers == nil then return nil end
    coroutine.yield("trailers")
    waited = waited + 1
    return map(trailers)
  end
  handle.streamInfo = function()
    return { dynamicMetadata = function()
      return {
        get = function(_, filter) return stream.metadata[filter] end,
        set = function(_, filter, key, value)
          stream.metadata[filter] = stream.metadata[filter] or {}
          stream.metadata[filter][key] = value
        end,
      }
    end }
  end
  handle.respond = function(_, headers_sent, body_sent)
    handle.said = { headers = headers_sent, body = body_sent }
    coroutine.yield("responded")
  end
  return handle
end
function make_stream(context) return { context = context, metadata = {}, warnings = {} } end
function start(hook, handle)
  local thread = coroutine.create(hook)
  local fine, waits = coroutine.resume(thread, handle)
  assert(fine, waits)
  return thread, waits
end
function go_on(thread)
  local fine, waits = coroutine.resume(thread)
  assert(fine, waits)
  return waits
end
"""


@dataclass(slots=True)
class Stream:
    """One request on its way through a script."""

    state: Any
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the script answered by itself."""

    headers: Mapping[str, str]
    body: str


class LuaFilter:
    """One listener's Lua state."""

    def __init__(self, source: str) -> None:
        self._lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self._lua.execute(_PRELUDE)
        self._lua.execute(_DRIVER)
        self._lua.execute(source)
        self._globals = self._lua.globals()

    def set_clock(self, now: float) -> None:
        """What every clock says from now on, in seconds."""
        self._globals.clock.now = now

    def request(
        self, context: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> tuple[Stream, Reply | None]:
        """A request comes in; the reply is None when it is let through."""
        state = self._globals.make_stream(self._table(context))
        handle = self._globals.make_handle(state, self._table(headers or {}), None)
        self._globals.start(self._globals.envoy_on_request, handle)
        stream = Stream(state, list(state.warnings.values()))
        if handle.said is None:
            return stream, None
        return stream, Reply(dict(handle.said.headers.items()), handle.said.body)

    def headers_after_request(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers of a request when the script has let it through."""
        table = self._table(headers)
        handle = self._globals.make_handle(self._globals.make_stream(self._table({})), table, None)
        self._globals.start(self._globals.envoy_on_request, handle)
        return dict(table.items())

    def response(self, stream: Stream, headers: Mapping[str, str], trailers: Mapping[str, str] | None = None) -> Any:
        """An answer comes back; when the script waits for its end, what ``finish`` is to be given, else None."""
        table = None if trailers is None else self._table(trailers)
        handle = self._globals.make_handle(stream.state, self._table(headers), table)
        thread, waits = self._globals.start(self._globals.envoy_on_response, handle)
        return thread if waits == "trailers" else None

    def exchange(
        self,
        context: Mapping[str, Any],
        asked: Mapping[str, str],
        headers: Mapping[str, str],
        chunks: Sequence[str] = (),
    ) -> tuple[dict[str, str], str | None]:
        """A whole request and its answer: what headers come out, and the body if it was replaced."""
        state = self._globals.make_stream(self._table(context))
        self._globals.start(self._globals.envoy_on_request, self._globals.make_handle(state, self._table(asked), None))
        handle = self._globals.make_handle(state, self._table(headers), None, self._lua.table_from(list(chunks)))
        self._globals.start(self._globals.envoy_on_response, handle)
        return dict(handle.headers_of.items()), handle.body_of

    def finish(self, waiting: Any) -> None:
        """The end of an answer has come."""
        self._globals.go_on(waiting)

    def _table(self, values: Mapping[str, Any]) -> Any:
        return self._lua.table_from(dict(values))
