"""What runs inside Redis: Lua scripts that store events and publish them in one step.

A history has three keys in one slot: the stream, its state, and the stream's ids by the ids of
publications. The id of an entry is its time in microseconds, and a number that only grows.

Spec: Redis, "Scripting with Lua" and "Streams".
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final


class Script:
    """A Lua script, and the hash by which Redis knows it."""

    def __init__(self, *parts: str) -> None:
        self.source: bytes = "\n".join(parts).encode()
        self.sha: bytes = sha1(self.source, usedforsecurity=False).hexdigest().encode()


_CLOCK = """
local function text(number)
  return string.format('%.0f', number)
end

local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
"""

_HISTORY = """
local ZERO = '0-0'
local stream, meta, ids = KEYS[1], KEYS[2], KEYS[3]

local function parts(id)
  local time, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(time), tonumber(number)
end

local function is_before(one, other)
  local time, number = parts(one)
  local other_time, other_number = parts(other)
  return time < other_time or (time == other_time and number < other_number)
end

local function behind(id)
  local time, number = parts(id)
  return text(time) .. '-' .. text(number + 1)
end

local function save(state)
  redis.call('HSET', meta, 'epoch', state.epoch, 'last', state.last, 'created', state.created,
    'count', state.count, 'bytes', text(state.bytes), 'forgotten', state.forgotten,
    'lost', state.lost)
end

-- Return the state. If a part of the history is missing, begin a new epoch with an empty one.
-- `known` is an epoch that the caller has seen, or ''.
local function opened(known, time)
  local names = {'epoch', 'last', 'created', 'count', 'bytes', 'forgotten', 'lost'}
  local values = redis.call('HMGET', meta, unpack(names))
  local state, is_whole = {}, true
  for place, name in ipairs(names) do
    state[name] = values[place]
    is_whole = is_whole and values[place] ~= false
  end
  local length, known_ids = redis.call('XLEN', stream), redis.call('HLEN', ids)
  if is_whole then
    state.count, state.bytes = tonumber(state.count), tonumber(state.bytes)
    if state.count == length and length == known_ids then
      return state
    end
  end
  local is_lost = values[1] ~= false or length > 0 or known_ids > 0 or known ~= ''
  state = {epoch = text(time), last = ZERO, created = text(time), count = 0, bytes = 0,
    forgotten = ZERO, lost = is_lost and 'yes' or ''}
  save(state) -- first: when memory is full it is refused, and nothing has been written
  redis.call('DEL', stream, ids)
  return state
end

-- Drop the oldest entries until the bounds are kept; tell whether there were any.
local function trim(state, events, bytes, age, time)
  local count = state.count
  while state.count > 0 do
    local is_full = state.count > events or state.bytes > bytes
    if not is_full and age == math.huge then
      break
    end
    local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    if not is_full and time - parts(entry[1]) <= age then
      break
    end
    redis.call('XDEL', stream, entry[1])
    redis.call('HDEL', ids, entry[2][2])
    state.count, state.bytes = state.count - 1, state.bytes - tonumber(entry[2][4])
    state.forgotten = entry[1]
  end
  return state.count < count
end
"""

_APPEND = """
-- Store an event in the history; return its epoch, the id of the event before it, and its own id.
local function append(asked, publication, entry)
  local time = now()
  local state = opened(asked.known, time)
  local known = redis.call('HGET', ids, publication)
  if known then
    return state.epoch, nil, known
  end
  local newest, number = parts(state.last)
  local before, id = state.last, text(math.max(time, newest)) .. '-' .. text(number + 1)
  state.last, state.count, state.bytes = id, state.count + 1, state.bytes + asked.size
  save(state) -- first, see above
  redis.call('XADD', stream, id, 'publication', publication, 'size', asked.size, 'event', entry)
  redis.call('HSET', ids, publication, id)
  trim(state, asked.events or math.huge, asked.bytes or math.huge, asked.age or math.huge,
    math.max(time, newest))
  save(state)
  return state.epoch, before, id
end
"""

_RETAIN = """
-- Keep an event as the last one of its topic. The newest stands first in the list; before each
-- event stand whether it is for all ('a') or restricted ('r'), and its size.
local function retain(asked, first_key, event)
  local topic, order, sizes = KEYS[first_key], KEYS[first_key + 1], KEYS[first_key + 2]
  redis.call('ZADD', order, now(), asked.topic) -- first, as it is refused when memory is full
  local kept = {(asked.restricted and 'r' or 'a') .. text(asked.size) .. '\\n' .. event}
  if asked.restricted then
    for _, older in ipairs(redis.call('LRANGE', topic, 0, -1)) do
      if string.sub(older, 1, 1) == 'a' or #kept < asked.most then
        kept[#kept + 1] = older
      end
    end
  end
  local size = 0
  for _, item in ipairs(kept) do
    size = size + tonumber(string.match(item, '^.(%d+)'))
  end
  redis.call('DEL', topic)
  redis.call('RPUSH', topic, unpack(kept))
  local older = tonumber(redis.call('HGET', sizes, asked.topic) or 0)
  redis.call('HSET', sizes, asked.topic, text(size))
  local all = redis.call('HINCRBY', sizes, '', text(size - older))
  while redis.call('ZCARD', order) > (asked.topics or math.huge)
      or all > (asked.bytes or math.huge) do
    local oldest = redis.call('ZPOPMIN', order)[1]
    if not oldest then
      break
    end
    redis.call('DEL', asked.prefix .. oldest)
    local dropped = tonumber(redis.call('HGET', sizes, oldest) or 0)
    if dropped > 0 then
      all = redis.call('HINCRBY', sizes, '', text(-dropped))
    end
    redis.call('HDEL', sizes, oldest)
  end
end
"""

PUBLISH: Final = Script(
    _CLOCK,
    _HISTORY,
    _APPEND,
    _RETAIN,
    """
-- KEYS: those of the history if asked for, then those of the retained event if asked for.
-- ARGV: what is asked, the event as subscribers get it, and as it is stored ('' for the same).
local asked, event, entry = cjson.decode(ARGV[1]), ARGV[2], ARGV[3]
if entry == '' then
  entry = event
end
local header, epoch, before, id = asked.header, '', nil, ''
if asked.history then
  epoch, before, id = append(asked.history, asked.publication, entry)
  if not before then -- it was published before
    return {epoch, id}
  end
  header = 'h' .. epoch .. ' ' .. before .. ' ' .. id .. ' ' .. asked.history.name
end
if asked.retained then
  retain(asked.retained, asked.history and 4 or 1, entry)
end
redis.call('PUBLISH', asked.channel, header .. '\\n' .. event)
return {epoch, id}
""",
)
"""Store an event in a history or as a retained event or both, and publish it.

An event that the history has already is left as it is.
"""

QUERY: Final = Script(
    _CLOCK,
    _HISTORY,
    """
-- Return the epoch, whether nothing is missing, the range of the query, the time, the last id that
-- was given, whether there may be more, and for each entry its id, its publication and itself.
local asked = cjson.decode(ARGV[1])
local time = now()
local state = opened(asked.known, time)
if trim(state, math.huge, math.huge, asked.age or math.huge, time) then
  save(state)
end
local forgotten = state.forgotten
local from, to, is_complete = asked.from or ZERO, asked.to, true

local function answer(entries, has_more)
  local newest = parts(state.last)
  return {state.epoch, is_complete and 1 or 0, from, to or '', text(math.max(time, newest)),
    state.last, has_more and 1 or 0, entries}
end

if asked.epoch then -- what comes after something that the caller has seen
  if asked.epoch ~= state.epoch then
    is_complete = false
    return answer({}, false)
  end
  is_complete = forgotten == ZERO or is_before(forgotten, from)
  if asked.seen and is_before(forgotten, asked.seen)
      and #redis.call('XRANGE', stream, asked.seen, asked.seen) == 0 then
    is_complete = false -- this Redis has another past
  end
else
  local is_known = #asked.lower > 0
  is_complete = is_known or (forgotten == ZERO and state.lost == '')
  local forgotten_until = math.max(tonumber(state.created) - 1, (parts(forgotten)))
  for _, bound in ipairs(asked.lower) do
    local kind, at, is_included = unpack(bound)
    local id
    if kind == 'time' then
      at = tonumber(at)
      id = text(is_included and at or at + 1) .. '-0'
      if at < forgotten_until or (at == forgotten_until and is_included) then
        is_complete = false
      end
    else
      id = redis.call('HGET', ids, at)
      if not id then -- unknown what came after it, so all is returned
        is_complete, id = false, ZERO
      elseif not is_included then
        id = behind(id)
      end
    end
    if is_before(from, id) then
      from = id
    end
  end
  for _, bound in ipairs(asked.upper) do
    local kind, at, is_included = unpack(bound)
    local id
    if kind == 'time' then
      id = text(is_included and tonumber(at) + 1 or tonumber(at)) .. '-0'
    else
      id = redis.call('HGET', ids, at)
      if not id then -- unknown what came before it
        is_complete = false
        return answer({}, false)
      end
      if is_included then
        id = behind(id)
      end
    end
    if not to or is_before(id, to) then
      to = id
    end
  end
end

if asked.count == 0 or (to and not is_before(from, to)) then
  return answer({}, false)
end
local last = to and '(' .. to or '+'
local found
if asked.reverse then
  found = redis.call('XREVRANGE', stream, last, from, 'COUNT', asked.count)
else
  found = redis.call('XRANGE', stream, from, last, 'COUNT', asked.count)
end
local entries, size, has_more = {}, 0, #found == asked.count
for _, entry in ipairs(found) do
  size = size + #entry[2][6]
  if #entries > 0 and size > asked.bytes then
    has_more = true
    break
  end
  entries[#entries + 1] = {entry[1], entry[2][2], entry[2][6]}
end
return answer(entries, has_more)
""",
)
"""Read a page of a history."""

TOPICS: Final = Script("return redis.call('GET', KEYS[1]) or ''")
"""Read the topic routes of a realm."""

RETAINED: Final = Script(
    """
-- Send a topic's retained events to the inbox of a process. KEYS: the list. ARGV: inbox, token.
local message = {'r', ARGV[2], '\\n'}
for _, item in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local event = string.sub(item, string.find(item, '\\n', 1, true) + 1)
  message[#message + 1] = #event .. ':' .. event
end
return redis.call('PUBLISH', ARGV[1], table.concat(message))
"""
)
"""Send the retained events of a topic to a process.

They come over the connection on which the process receives what is published. So what was published
before has arrived before them, and what is published later arrives later.
"""
