"""Fallbacks as the Lua that Envoy runs.  Pure: one text.

It stands outside the circuit breaker, so that it serves while the circuit is open as well. A good answer is copied
while it passes, chunk by chunk, and nothing waits for it; only a failure that is replaced is held back until its end.
"""

from __future__ import annotations

_SOURCE = r"""
local TAG = "meshctl.fallback"
local floor, lower = math.floor, string.lower

-- What is kept of each target: entries by key, in a list from the oldest to the newest.
local stores = {}

local function drop(store, entry)
  store.entries[entry.key] = nil
  store.count, store.bytes = store.count - 1, store.bytes - entry.bytes
  if entry.before then entry.before.after = entry.after else store.oldest = entry.after end
  if entry.after then entry.after.before = entry.before else store.newest = entry.before end
end

local function keep(store, limits, entry)
  local known = store.entries[entry.key]
  if known then drop(store, known) end
  if entry.bytes > limits.max_bytes then return end
  store.entries[entry.key] = entry
  store.count, store.bytes = store.count + 1, store.bytes + entry.bytes
  entry.before = store.newest
  if store.newest then store.newest.after = entry else store.oldest = entry end
  store.newest = entry
  while store.count > limits.max_entries or store.bytes > limits.max_bytes do drop(store, store.oldest) end
end

local function store_of(target)
  local store = stores[target]
  if store == nil then
    store = { entries = {}, count = 0, bytes = 0, oldest = nil, newest = nil }
    stores[target] = store
  end
  return store
end

local function now(handle)
  return tonumber(handle:timestamp()) / 1000
end

local function has(list, ...)
  if list == nil then return false end
  list = "," .. lower(list):gsub("%s", "") .. ","
  for _, word in ipairs({ ... }) do
    if list:find("," .. word .. ",", 1, true) or list:find("," .. word .. "=", 1, true) then return true end
  end
  return false
end

-- ------------------------------------------------------------------------------------------------- requests

-- Headers by which answers may differ; an answer that names others in Vary is not kept.
local VARIES_BY = { "accept", "accept-encoding", "accept-language", "origin" }
local VARY_KNOWN = { ["accept"] = true, ["accept-encoding"] = true, ["accept-language"] = true, ["origin"] = true,
  ["authorization"] = true, ["cookie"] = true }

local function make_key(headers, share)
  local parts = { headers:get(":authority") or "", headers:get(":path") or "" }
  for index = 1, #VARIES_BY do parts[#parts + 1] = headers:get(VARIES_BY[index]) or "" end
  if not share then
    parts[#parts + 1] = headers:get("authorization") or ""
    parts[#parts + 1] = headers:get("cookie") or ""
  end
  return table.concat(parts, "\n")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get(":method") ~= "GET" or headers:get("upgrade") ~= nil then return end
  local context = handle:filterContext()
  local key = "static"
  if context:get("strategy") == "cached_response" then
    if headers:get("range") ~= nil or has(headers:get("cache-control"), "no-store") then return end
    key = make_key(headers, context:get("share_credentials"))
  end
  handle:streamInfo():dynamicMetadata():set(TAG, "key", key)
end

-- ------------------------------------------------------------------------------------------------- good answers

-- Those that belong to one connection or one moment are not repeated.
local NOT_KEPT = { ["connection"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
  ["trailer"] = true, ["te"] = true, ["proxy-authenticate"] = true, ["content-length"] = true, ["age"] = true,
  ["x-envoy-upstream-service-time"] = true, ["x-meshctl-instance"] = true, ["x-meshctl-version"] = true }

local function may_be_kept(headers, context)
  local status = headers:get(":status")
  if status < "200" or status > "299" or status == "206" then return false end
  if has(headers:get("cache-control"), "no-store", "private", "no-cache", "must-revalidate") then return false end
  if headers:get("set-cookie") ~= nil then return false end
  if (headers:get("content-type") or ""):find("^text/event%-stream") then return false end
  for word in (headers:get("vary") or ""):gmatch("[^,%s]+") do
    if not VARY_KNOWN[lower(word)] then return false end
  end
  local length = tonumber(headers:get("content-length") or "0")
  return length ~= nil and length <= context.max_body_bytes
end

local function copy_while_it_passes(handle, limits, key)
  local headers = handle:headers()
  if not may_be_kept(headers, limits) then
    -- Neither is what was kept before, if this is how it is now; a refusal says nothing of that.
    local status, store = headers:get(":status"), store_of(limits.target)
    local tells = status < "400" or status == "404" or status == "410"
    if tells and store.entries[key] then drop(store, store.entries[key]) end
    return
  end
  local entry = { key = key, headers = {}, kept_at = now(handle), age = tonumber(headers:get("age") or "0") or 0 }
  local size = #key
  for name, value in pairs(headers) do
    if not NOT_KEPT[name] then
      entry.headers[#entry.headers + 1] = { name, value }
      size = size + #name + #value
    end
  end
  local expected = tonumber(headers:get("content-length") or "")
  local chunks, length = {}, 0
  for chunk in handle:bodyChunks() do
    local bytes = chunk:length()
    length = length + bytes
    if length > limits.max_body_bytes then return end
    if bytes > 0 then chunks[#chunks + 1] = chunk:getBytes(0, bytes) end
  end
  if expected ~= nil and expected ~= length then return end
  entry.body = table.concat(chunks)
  entry.bytes = size + length
  keep(store_of(limits.target), limits, entry)
end

-- ------------------------------------------------------------------------------------------------- failures

local function replace(handle, status, fields, body)
  local headers = handle:headers()
  local names = {}
  for name in pairs(headers) do names[#names + 1] = name end
  for _, name in ipairs(names) do
    -- That the circuit is open stays to be seen.
    if name:sub(1, 1) ~= ":" and name ~= "x-meshctl-circuit" then headers:remove(name) end
  end
  headers:replace(":status", status)
  for _, field in ipairs(fields) do headers:add(field[1], field[2]) end
  -- Envoy sets the length.
  handle:body(true):setBytes(body)
end

function envoy_on_response(handle)
  local noted = handle:streamInfo():dynamicMetadata():get(TAG)
  if noted == nil then return end
  local context = handle:filterContext()
  local status = handle:headers():get(":status")
  local failed = status >= "500"
  if context:get("strategy") == "static" then
    if failed then
      replace(handle, tostring(context:get("status")), {
        { "content-type", context:get("content_type") }, { "x-meshctl-fallback", "static" },
      }, context:get("body"))
    end
    return
  end
  local limits = {
    target = context:get("target"), max_entries = context:get("max_entries"), max_bytes = context:get("max_bytes"),
    max_body_bytes = context:get("max_body_bytes"),
  }
  if not failed then return copy_while_it_passes(handle, limits, noted.key) end
  local store = store_of(limits.target)
  local entry = store.entries[noted.key]
  if entry == nil then return end
  local age = now(handle) - entry.kept_at
  if age > context:get("max_age") or age < 0 then return drop(store, entry) end
  local fields = {}
  local good = "200"
  for _, field in ipairs(entry.headers) do
    if field[1] == ":status" then good = field[2] elseif field[1]:sub(1, 1) ~= ":" then fields[#fields + 1] = field end
  end
  fields[#fields + 1] = { "age", tostring(floor(age + entry.age)) }
  fields[#fields + 1] = { "warning", '110 - "Response is Stale"' }
  fields[#fields + 1] = { "x-meshctl-fallback", "cached_response" }
  replace(handle, good, fields, entry.body)
end
"""


def build_source() -> str:
    """The script, the same for every listener."""
    # Every listener holds the text more than once: without comments and indentation it is shorter by a third.
    lines = (line.strip() for line in _SOURCE.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("--"))
