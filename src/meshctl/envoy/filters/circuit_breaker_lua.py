"""The circuit breaker as the Lua that Envoy runs.  Pure: one text, and the function that fills in a listener's path.

The machine is that of docs/guides/circuit-breaking.md; tests/unit/envoy/test_circuit_breaker_lua.py holds it to a
plain model. What a request costs while a breaker is closed decides how it is written: one look-up on its way there, one
status on its way back, no clock, no allocation of its own.
"""

from __future__ import annotations

from meshctl.envoy.circuit_layout import CDEF, FILE_SIZE, HEADER_SIZE, MAX_PROBES, RING, SLOT_SIZE, SLOTS, VERSION

CONTEXT_KEY = "circuit"
"""Where a route's filter context holds the parameters; plan.policies.circuit_breaker writes them."""

_SOURCE = r"""
local PATH = "@PATH@"
local CLOSED, OPEN, HALF_OPEN = 0, 1, 2
local AUTO, FORCED_OPEN, FORCED_CLOSED = 0, 1, 2
local FAILURES, FAILURE_RATE, TIMEOUT, PROBE, SUCCESSES = 1, 2, 3, 4, 5
local TAG, SHORTEST_TAGGING = "meshctl.circuit", 60
-- UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: what the service, and not its caller, did wrong.
local GRPC_FAILURES = { ["2"] = true, ["4"] = true, ["13"] = true, ["14"] = true, ["15"] = true }

local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max
local bit = require("bit")
local is_mac = jit.os == "OSX"
local MONOTONIC, REALTIME = is_mac and 6 or 1, 0

-- Only once a request comes: most listeners that there are never see one in their main thread, which has Lua too.
local ffi, C, stamp
local function load_ffi()
  ffi = require("ffi")
  C = ffi.C
  ffi.cdef[[@CDEF@
int open(const char *path, int flags, ...);
int close(int file);
int ftruncate(int file, int64_t length);
int posix_fallocate(int file, int64_t offset, int64_t length);
void *mmap(void *address, size_t length, int protection, int flags, int file, int64_t offset);
int clock_gettime(int clock, mesh_time *time);
]]
  stamp = ffi.new("mesh_time")
end

local function read_clock(clock)
  C.clock_gettime(clock, stamp)
  return tonumber(stamp.seconds) + tonumber(stamp.nanoseconds) * 1e-9
end

-- ------------------------------------------------------------------------------------------------- shared memory

local header, memory = nil, nil
local kept = {}  -- what the garbage collector must not take

local function map_file()
  if PATH == "" then return nil end
  -- O_RDWR, O_CREAT, O_CLOEXEC; for its owner alone.
  local file = C.open(PATH, is_mac and 0x1000202 or 0x80042, ffi.cast("int", 0x180))
  if file < 0 then return nil end
  -- Where the disk is full, this fails; a file with holes would end the process when it is written to.
  local sized
  if is_mac then sized = C.ftruncate(file, @FILE_SIZE@) else sized = C.posix_fallocate(file, 0, @FILE_SIZE@) end
  local at = nil
  if sized == 0 then
    at = C.mmap(nil, @FILE_SIZE@, 3, 1, file, 0)
    if ffi.cast("intptr_t", at) == -1 then at = nil end
  end
  C.close(file)
  return at
end

local function own_slot()
  local slot = ffi.new("mesh_slot")
  kept[#kept + 1] = slot
  return slot
end

local function reset(slot)
  slot.state, slot.failures, slot.successes, slot.opened_at, slot.retry_at = CLOSED, 0, 0, 0, 0
  slot.window_fill, slot.window_next, slot.window_failed = 0, 0, 0
end

local function find_slot(handle, target)
  if header == nil then
    local at = map_file()
    if at == nil then
      handle:logWarn("meshctl: circuit breakers are kept out of sight: " .. PATH .. " cannot be used")
      header = ffi.new("mesh_header")
    else
      header = ffi.cast("mesh_header *", at)
      memory = ffi.cast("char *", at) + @HEADER_SIZE@
      header.version = @VERSION@
    end
  end
  if memory == nil then return own_slot() end
  for index = 0, @SLOTS@ - 1 do
    local slot = ffi.cast("mesh_slot *", memory + index * @SLOT_SIZE@)
    local name = ffi.string(slot.target)
    if name == target then
      -- Opened in the time to come: the machine was started anew since.
      if slot.opened_at > read_clock(MONOTONIC) then reset(slot) end
      return slot
    elseif name == "" then
      ffi.copy(slot.target, target)
      return slot
    end
  end
  handle:logWarn("meshctl: too many targets: the circuit breaker of " .. target .. " is kept out of sight")
  return own_slot()
end

-- ------------------------------------------------------------------------------------------------- changes

local function begin_epoch(slot)
  slot.serial = slot.serial + 1
  slot.epoch = slot.serial
  slot.failures, slot.successes = 0, 0
  ffi.fill(slot.permits, ffi.sizeof(slot.permits))
end

local function change(slot, state, reason, value)
  local count = slot.changes
  local record = slot.ring[count % @RING@]
  record.time, record.from_state, record.to_state = read_clock(REALTIME), slot.state, state
  record.reason, record.value = reason, value
  slot.state = state
  begin_epoch(slot)
  slot.changes = count + 1
  header.changes = header.changes + 1
end

local function open_circuit(slot, params, reason, value)
  local now = read_clock(MONOTONIC)
  slot.opened_at, slot.retry_at = now, now + params.timeout
  change(slot, OPEN, reason, value)
end

local function close_circuit(slot, params)
  slot.window_fill, slot.window_next, slot.window_failed = 0, 0, 0
  slot.opened_at, slot.retry_at = 0, 0
  -- Answers to requests from before it opened may still come: for some time, those let through now are marked.
  slot.tag_until = read_clock(MONOTONIC) + max(SHORTEST_TAGGING, 2 * params.probe_timeout)
  change(slot, CLOSED, SUCCESSES, params.success_threshold)
end

-- ------------------------------------------------------------------------------------------------- parameters

-- Each target has a box with its slot and the newest parameters, which every text that asks for it leads to.
local boxes, box_count, only = {}, 0, nil
local parsed, parsed_count = {}, 0

local function adopt(box, params)
  box.params = params
  local slot = box.slot
  if slot.forced ~= params.forced then
    -- Forced by hand, or by hand no more: whatever was counted counts no longer.
    reset(slot)
    slot.state = params.forced == FORCED_OPEN and OPEN or CLOSED
    slot.forced = params.forced
    begin_epoch(slot)
    if params.forced == AUTO then
      slot.tag_until = read_clock(MONOTONIC) + max(SHORTEST_TAGGING, 2 * params.probe_timeout)
    end
  end
  if slot.state == OPEN and params.forced == AUTO then slot.retry_at = slot.opened_at + params.timeout end
  local size = params.rate > 0 and params.minimum or 0
  if slot.window_size ~= size then
    slot.window_size, slot.window_fill, slot.window_next, slot.window_failed = size, 0, 0, 0
  end
end

local function parse(handle, text)
  local words = {}
  for word in text:gmatch("[^|]+") do words[#words + 1] = tonumber(word) or word end
  local target, box = words[1], boxes[words[1]]
  if box == nil then
    if ffi == nil then load_ffi() end
    box = { slot = find_slot(handle, target) }
    boxes[target], box_count = box, box_count + 1
    only = box_count == 1 and box or nil
  end
  local params = {
    box = box, target = target, failure_threshold = words[2], success_threshold = words[3], timeout = words[4],
    rate = words[5], minimum = words[6], slow = words[7], probe_timeout = words[8], grpc = words[9] == 1,
    forced = words[10],
  }
  -- Of a plain one a success says nothing new, unless something failed before.
  params.is_plain = not params.grpc and params.slow == 0 and params.rate == 0
  if parsed_count >= 1000 then parsed, parsed_count = {}, 0 end
  parsed[text], parsed_count = params, parsed_count + 1
  return params
end

-- ------------------------------------------------------------------------------------------------- requests

local function tag(handle, serial)
  handle:streamInfo():dynamicMetadata():set(TAG, "serial", serial)
end

local function read_tag(handle)
  local found = handle:streamInfo():dynamicMetadata():get(TAG)
  return found ~= nil and found.serial or -1
end

local function reject(handle, params, seconds)
  local slot = params.box.slot
  slot.rejected = slot.rejected + 1
  -- For what is counted of each request (envoy.signals).
  handle:streamInfo():dynamicMetadata():set(TAG, "rejected", "circuit_open")
  local left = max(1, ceil(seconds))
  local why = params.forced == FORCED_OPEN and "it was opened by hand" or ("try again in " .. left .. " s")
  handle:respond({
    [":status"] = "503", ["content-type"] = "text/plain; charset=utf-8",
    ["x-meshctl-circuit"] = "open", ["retry-after"] = tostring(left),
  }, "meshctl: the circuit to " .. params.target .. " is open: " .. why .. "\n")
end

local function admit(handle, params, slot)
  if params.forced == FORCED_OPEN then return reject(handle, params, params.timeout) end
  local now = read_clock(MONOTONIC)
  if slot.state == OPEN then
    local left = slot.opened_at + params.timeout - now
    if left > 0 and slot.opened_at <= now then return reject(handle, params, left) end
    change(slot, HALF_OPEN, TIMEOUT, params.timeout)
  end
  for index = 0, min(params.success_threshold, @MAX_PROBES@) - 1 do
    local holds_until = slot.permits[2 * index]
    -- Free; or held for too long, as by a request whose client went away.
    if holds_until <= now or holds_until > now + params.probe_timeout then
      slot.serial = slot.serial + 1
      slot.permits[2 * index], slot.permits[2 * index + 1] = now + params.probe_timeout, slot.serial
      return tag(handle, slot.serial)
    end
  end
  return reject(handle, params, 1)
end

function envoy_on_request(handle)
  local text = handle:filterContext():get("@KEY@")
  local params = parsed[text] or parse(handle, text)
  local box = params.box
  if box.params ~= params then adopt(box, params) end
  local slot = box.slot
  if slot.state ~= CLOSED then return admit(handle, params, slot) end
  if slot.tag_until ~= 0 then
    if read_clock(MONOTONIC) < slot.tag_until then
      tag(handle, slot.epoch)
    else
      slot.tag_until = 0
    end
  end
end

-- ------------------------------------------------------------------------------------------------- responses

-- true for a failure, false for a success, nil for an answer that says nothing of the target.
local function judge(handle, params, slot)
  local headers = handle:headers()
  local status = headers:get(":status")
  local fine = status < "500"
  if fine and slot.failures == 0 and slot.state == CLOSED and params.is_plain then return false end
  -- Only an answer of the target has it; without it a filter or the router answered.
  local took = headers:get("x-envoy-upstream-service-time")
  local own_limit = took == nil and (headers:get("x-meshctl-overloaded")
    or headers:get("x-envoy-overloaded") or headers:get("x-envoy-local-overloaded"))
  if params.grpc then
    local code = headers:get("grpc-status")
    if code == nil and status == "200" then
      -- What was taken from the headers is of no use once this has waited.
      local trailers = handle:trailers()
      if trailers == nil then return nil end
      code = trailers:get("grpc-status")
    end
    if GRPC_FAILURES[code] then fine = false end
  end
  if not fine then
    if own_limit then return nil end
    return true
  end
  if took == nil then return nil end
  return params.slow > 0 and tonumber(took) > params.slow
end

local function count_in_window(slot, failed)
  local size, at = slot.window_size, slot.window_next
  local word, mask = floor(at / 32), bit.lshift(1, at % 32)
  local bits = bit.tobit(slot.window[word])
  if slot.window_fill < size then
    slot.window_fill = slot.window_fill + 1
  elseif bit.band(bits, mask) ~= 0 then
    slot.window_failed = slot.window_failed - 1
  end
  if failed then
    slot.window[word] = bit.bor(bits, mask)
    slot.window_failed = slot.window_failed + 1
  else
    slot.window[word] = bit.band(bits, bit.bnot(mask))
  end
  slot.window_next = (at + 1) % size
end

local function count(slot, params, failed)
  if failed then
    slot.failed = slot.failed + 1
    slot.failures = slot.failures + 1
  elseif slot.failures ~= 0 then
    slot.failures = 0
  end
  -- Another listener may have taken up parameters without a rate already.
  local rated = params.rate > 0 and slot.window_size > 0
  if rated then count_in_window(slot, failed) end
  if slot.failures >= params.failure_threshold then
    open_circuit(slot, params, FAILURES, slot.failures)
  elseif rated and slot.window_fill >= slot.window_size then
    local share = slot.window_failed * 100 / slot.window_size
    if share >= params.rate then open_circuit(slot, params, FAILURE_RATE, share) end
  end
end

local function count_probe(slot, params, serial, failed)
  for index = 0, @MAX_PROBES@ - 1 do
    if slot.permits[2 * index + 1] == serial then slot.permits[2 * index] = 0 end
  end
  if failed then
    slot.failed = slot.failed + 1
    open_circuit(slot, params, PROBE, slot.successes)
  elseif failed == false then
    slot.successes = slot.successes + 1
    if slot.successes >= params.success_threshold then close_circuit(slot, params) end
  end
end

function envoy_on_response(handle)
  local box = only
  if box == nil then
    -- An answer to a request that never came here is a reply of a filter before this one.
    local params = parsed[handle:filterContext():get("@KEY@")]
    if params == nil then return end
    box = params.box
  end
  local params, slot = box.params, box.slot
  local failed = judge(handle, params, slot)
  -- Only now: of a gRPC answer the end had to be waited for.
  local state = slot.state
  if state == OPEN or params.forced ~= AUTO then return end
  if state == HALF_OPEN then
    local serial = read_tag(handle)
    if serial >= slot.epoch then count_probe(slot, params, serial, failed) end
    return
  end
  if failed == nil then return end
  if slot.tag_until ~= 0 and read_clock(MONOTONIC) < slot.tag_until and read_tag(handle) < slot.epoch then return end
  if failed or slot.failures ~= 0 or params.rate > 0 then count(slot, params, failed) end
end
"""


def build_source(path: str) -> str:
    """The script of a listener; ``path`` is the file of its sidecar's state, empty to keep it out of sight."""
    text = _SOURCE
    for name, value in {
        "CDEF": CDEF,
        "FILE_SIZE": FILE_SIZE,
        "HEADER_SIZE": HEADER_SIZE,
        "SLOT_SIZE": SLOT_SIZE,
        "SLOTS": SLOTS,
        "VERSION": VERSION,
        "RING": RING,
        "MAX_PROBES": MAX_PROBES,
        "KEY": CONTEXT_KEY,
        "PATH": path.replace("\\", "\\\\").replace('"', '\\"'),
    }.items():
        text = text.replace(f"@{name}@", str(value))
    # Every listener holds the text more than once: without comments and indentation it is shorter by a third.
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))
