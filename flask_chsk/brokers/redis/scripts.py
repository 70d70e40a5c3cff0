"""What the Redis broker has Redis do, each as one Lua script: all of it happens, or nothing.

What each key holds: docs/broker.rst, "Keys in Redis". What bounds it and when it ends:
docs/broker.rst, "What is kept, and for how long". A test compares both with the scripts.

**Completeness is proved by what is kept.** A channel that is not in ``hs`` had no event above
``floor``: as a channel is taken from ``hs``, ``floor`` is raised to its ``upto``. A channel that is
in ``hs`` and has lost its ``h`` or ``s`` (expired, deleted, evicted) is incomplete for cursors
below ``upto``. Expiry by Redis' clock only frees memory; it proves nothing.

**Time** is the broker's: Redis' clock plus ``shift``, which grows when the clock goes back, so that
time goes on from where it was. Offsets are that time in microseconds, or the last one plus 2.

Offsets stay below 2^53, so Lua's numbers hold them; its ``tostring`` would round them, so
they are written with ``%.0f``. Not for Redis Cluster: names of keys are made in the scripts.
"""

from __future__ import annotations

import hashlib

from ..contract import DROPPED
from . import schema

_COUNTER = """
local base = KEYS[1]
local function text(n) return string.format('%.0f', n) end
local function counter()
  local v = redis.call('HMGET', base .. 'm', 'epoch', 'o', 'events', 'bytes', 'window', 'shift',
    'span')
  if not v[1] then return nil end
  if v[7] ~= SPAN and strange(v[7] or '-1 -1') then
    LOST = redis.error_reply('SCHEMA ' .. (v[7] or '-1 -1'))
    return nil
  end
  local t = redis.call('TIME')
  local m = {epoch = v[1], o = tonumber(v[2]), events = tonumber(v[3] or 256),
    bytes = tonumber(v[4] or 1048576), window = tonumber(v[5] or 120000)}
  m.clock = t[1] * 1000000 + t[2]
  m.now = m.clock + tonumber(v[6] or 0)
  if m.now < m.o - 1000000 then  -- the clock went back: time goes on from where it was
    m.now = m.o
    redis.call('HSET', base .. 'm', 'shift', text(m.o - m.clock))
  end
  m.ms = math.floor(m.now / 1000)
  return m
end
local function there(uid)
  return redis.call('EXISTS', base .. 'c:' .. uid, base .. 'g:' .. uid, base .. 'p:' .. uid) > 0
end
local function is_of(m, when)  -- less than a window, or a minute, ago
  local at = tonumber(redis.call('HGET', base .. 'm', when) or 0)
  return m.now - at < math.max(60000, m.window) * 1000
end
-- A process that had another epoch came just now: it lets its clients in again.
local function young(m) return is_of(m, 'anew') end
-- By two at least: a client can be told of a gap between what it has and the next event.
local function rise(m)
  m.o = math.max(m.o + 2, m.now)
  local o = text(m.o)
  redis.call('HSET', base .. 'm', 'o', o)
  return o
end
"""

_HISTORY = """
local function raise_floor(m, offset)
  if offset > tonumber(redis.call('HGET', base .. 'm', 'floor') or 0) then
    redis.call('HSET', base .. 'm', 'floor', text(offset))
  end
end
-- Channels whose events are all past their time: that they had some is noted in the floor.
local function forget(m, most)
  local old = redis.call('ZRANGEBYSCORE', base .. 'hs', '-inf',
    text(m.now - m.window * 1000 - 60000000), 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #old, 2 do
    raise_floor(m, tonumber(old[i + 1]))
    redis.call('ZREM', base .. 'hs', old[i])
    redis.call('ZREM', base .. 'ha', old[i])
    redis.call('UNLINK', base .. 's:' .. old[i], base .. 'h:' .. old[i])
  end
end
-- A channel's first event, or its first for half a minute.
local function note(m, channel, skey, hkey)
  local upto = text(m.o + 30000000)
  redis.call('ZADD', base .. 'hs', upto, channel)
  redis.call('HSET', hkey, 'upto', upto, 'kept', m.window)
  redis.call('PEXPIRE', skey, m.window + 90000)
  redis.call('PEXPIRE', hkey, m.window + 90000)
  forget(m, 2)
  if string.match(channel, '^c:[^:]*$') then  -- any visitor may make more of them
    redis.call('ZADD', base .. 'ha', upto, channel)
    if redis.call('ZCARD', base .. 'ha') > 10000 then
      local oldest = redis.call('ZPOPMIN', base .. 'ha')[1]
      redis.call('UNLINK', base .. 's:' .. oldest, base .. 'h:' .. oldest)
    end
  end
end
local function append(m, channel, pubsub, event, exclude, flush)
  local latest = m.o
  local o = rise(m)
  local skey, hkey = base .. 's:' .. channel, base .. 'h:' .. channel
  local h = redis.call('HMGET', hkey, 'last', 'bytes', 'count', 'upto', 'kept')
  local before = h[1]
  if not before then  -- of a history that is lost, as far as is known
    before = text(math.min(tonumber(redis.call('ZSCORE', base .. 'hs', channel) or 0), latest))
    redis.call('UNLINK', skey)
  end
  local bytes, count = (tonumber(h[2]) or 0) + #event, (tonumber(h[3]) or 0) + 1
  redis.call('XADD', skey, o .. '-0', 'p', before, 't', event, 'b', exclude)
  -- The events over the limit go an eighth at a time: to find the oldest costs more than it does.
  if bytes > m.bytes or count > m.events + math.floor(m.events / 8) then
    while count > m.events or bytes > m.bytes do
      local oldest = redis.call('XRANGE', skey, '-', '+', 'COUNT', math.max(1, count - m.events))
      if #oldest == 0 then bytes, count = 0, 0 break end
      for _, entry in ipairs(oldest) do
        bytes, count = bytes - #entry[2][4], count - 1
      end
      local last = string.match(oldest[#oldest][1], '^%d+')
      redis.call('XTRIM', skey, 'MINID', last .. '-1')
    end
  end
  redis.call('HSET', hkey, 'last', o, 'bytes', text(bytes), 'count', text(count))
  if m.o > (tonumber(h[4]) or 0) or tonumber(h[5]) ~= m.window then
    note(m, channel, skey, hkey)
  end
  redis.call('PUBLISH', base .. pubsub, table.concat(
    {SCHEMA, m.epoch, o, #channel, #exclude, #event, flush}, ' ')
    .. '\\n' .. channel .. exclude .. event)
  return o
end
"""

_DROP = f"""
-- The zset has users, each with the offset of the last event to them that found nobody; the field
-- of m is not below the offsets of all users that the zset does not have.
local zkey = base .. 'dropped'
local function forget_dropped(offset)
  redis.call('HSET', base .. 'm', 'dropped', text(tonumber(offset)))
end
local function drop_event(m, uid)
  redis.call('ZADD', zkey, rise(m), uid)
  if redis.call('ZCARD', zkey) > {DROPPED} then forget_dropped(redis.call('ZPOPMIN', zkey)[2]) end
end
"""

_DROPPED = """
local function dropped(m, uid)
  if not redis.call('ZSCORE', zkey, '') then  -- deleted: whom it had is lost
    forget_dropped(rise(m))
    redis.call('ZADD', zkey, 'inf', '')
  end
  local last = uid ~= '' and redis.call('ZSCORE', zkey, uid)
  return text(tonumber(last or redis.call('HGET', base .. 'm', 'dropped') or 0))
end
-- Cursors below are too old in any case.
local function forget_old_drops(m)
  local old = redis.call('ZREVRANGEBYSCORE', zkey, text(m.now - m.window * 1000), '-inf',
    'WITHSCORES', 'LIMIT', 0, 1)
  if old[2] then
    forget_dropped(old[2])
    redis.call('ZREMRANGEBYSCORE', zkey, '-inf', old[2])
  end
end
"""

_PRESENCE = """
-- The epoch began just now: what was before it may yet be told by processes.
local function fresh(m) return is_of(m, 'began') end
local function while_fresh(m) return math.max(60000, m.window) end
local function began_at() return redis.call('HGET', base .. 'm', 'began') end
local function count(kind, uid, by)
  if uid ~= '' and redis.call('HINCRBY', base .. kind, uid, by) <= 0 then
    redis.call('HDEL', base .. kind, uid)
  end
end
-- How a user's presence began in this epoch, and what is known of one client; nil, nil where a
-- user has none. What is of an epoch that is over does not count.
local function held_by(m, uid, id)
  local v = redis.call('HMGET', base .. 'c:' .. uid, '', id)
  local epoch, began = string.match(v[1] or '', '^(%S+) (%S+)')
  if epoch ~= m.epoch then return nil, nil end
  return began, v[2] or nil
end
-- Whoever has no client any more: their memberships end in a day.
local function leave_topics_later(m, uid)
  if redis.call('EXISTS', base .. 'j:' .. uid) == 1 then
    redis.call('ZADD', base .. 'js', text(m.ms + 86400000), uid)
  end
end
local function end_memberships(m, most)
  for _, uid in ipairs(redis.call('ZRANGEBYSCORE', base .. 'js', '-inf', text(m.ms),
      'LIMIT', 0, most)) do
    for _, topic in ipairs(redis.call('HKEYS', base .. 'j:' .. uid)) do
      redis.call('SREM', base .. 'k:' .. topic, uid)
    end
    redis.call('DEL', base .. 'j:' .. uid)
    redis.call('ZREM', base .. 'js', uid)
  end
end
local function drop(m, uid, id, token, of)
  local ckey = base .. 'c:' .. uid
  local began, held = held_by(m, uid, id)
  if not began then  -- nobody came back to it since the epoch began
    if redis.call('DEL', ckey) == 1 and uid ~= '' then leave_topics_later(m, uid) end
    return 0
  end
  if not held then return 0 end
  local t, worker, kind = string.match(held, '^(%S+) (%S+) (%S+)')
  if t ~= token or (of and of ~= worker) then return 0 end
  redis.call('HDEL', ckey, id)
  redis.call('HDEL', base .. 'w:' .. worker, id .. ':' .. uid)
  if m.window > 0 then redis.call('SET', base .. 'a:' .. id .. ':' .. uid, 1, 'PX', m.window) end
  count(kind, uid, -1)
  if redis.call('HLEN', ckey) > 1 then return 0 end
  redis.call('DEL', ckey)
  local o = rise(m)
  if uid ~= '' then
    if m.window > 0 then redis.call('SET', base .. 'g:' .. uid, 1, 'PX', m.window) end
    if fresh(m) then
      redis.call('HSET', base .. 'b', uid, began)
      redis.call('PEXPIRE', base .. 'b', while_fresh(m))
    end
    leave_topics_later(m, uid)
    end_memberships(m, 2)
    redis.call('PUBLISH', base .. '!', worker)
  end
  return o
end
"""

_SENDS = """
-- For how long keyed sends are remembered: KEY_SECONDS at least.
local function key_ms(m) return math.max(m.window, 120000) end

-- Keyed sends of a client take *by* bytes more; the oldest clients' go where it is too much.
local function weigh(m, client, by, most)
  local ys, yb = base .. 'ys', base .. 'yb'
  redis.call('ZADD', ys, text(m.ms), client)
  redis.call('HINCRBY', yb, client, text(by))
  local all = redis.call('HINCRBY', yb, '', text(by))
  local past = 0
  while true do
    local oldest = redis.call('ZRANGE', ys, 0, 0, 'WITHSCORES')
    if #oldest == 0 then break end
    local old = tonumber(oldest[2]) < m.ms - key_ms(m) - 1000
    if all <= most and (not old or past == 3) then break end
    past = past + 1
    all = redis.call('HINCRBY', yb, '', text(0 - tonumber(redis.call('HGET', yb, oldest[1]) or 0)))
    redis.call('HDEL', yb, oldest[1])
    redis.call('ZREM', ys, oldest[1])
    redis.call('UNLINK', base .. 'y:' .. oldest[1])
  end
end
"""

_LIMITS = """
-- The limits that hold are the smallest of the processes that live.
local function agree(m)
  local events, bytes, window
  local all = redis.call('HGETALL', base .. 'limits')
  for i = 1, #all, 2 do
    local e, b, w, till = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+)')
    if tonumber(till) < m.ms then
      redis.call('HDEL', base .. 'limits', all[i])
    else
      events = math.min(events or e, e)
      bytes = math.min(bytes or b, b)
      window = math.min(window or w, w)
    end
  end
  if not events then return end
  -- What a shorter window let go is not known, so with a longer one all is whole since now.
  if window > m.window then raise_floor(m, m.o) end
  if window ~= m.window or events ~= m.events or bytes ~= m.bytes then
    redis.call('HSET', base .. 'm', 'events', events, 'bytes', bytes, 'window', window)
  end
  m.events, m.bytes, m.window = events, bytes, window
end
"""


class Script:
    """A script, the name Redis knows it by, and how commands that call it begin."""

    __slots__ = ("heads", "sha", "text")

    def __init__(self, body: str, *uses: str) -> None:
        """:param uses: what it calls besides the counter; each call pays for all it has."""
        self.heads: dict[tuple[str, int], bytes] = {}  # for keys and a number of arguments
        self.text = "".join((schema.COUNTED, _COUNTER, *uses, body))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


HELLO = Script(
    """
-- new epoch, events, bytes, window (ms; '' from who has none to say), an epoch that is over, the
-- one that was known, worker, the last offset that was known, for how long a close is kept for a
-- client between two polls (ms)
local span, alive = census()
if span and strange(span) then return {'schema', span, alive} end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local policy = string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:([%w-]+)')
local mkey, known = base .. 'm', tonumber(ARGV[8])
local v = redis.call('HMGET', mkey, 'epoch', 'run', 'o', 'shift')
local begins = not v[1] or v[2] ~= run or v[1] == ARGV[5]
if begins then
  local t = redis.call('TIME')
  local now = t[1] * 1000000 + t[2] + tonumber(v[4] or 0)
  local o = text(math.max(now, tonumber(v[3] or 0) + 1, known + 1))
  local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
  redis.call('HSET', mkey, 'epoch', ARGV[1], 'run', run, 'o', o, 'began', o, 'floor', o,
    'evicted', evicted, 'dropped', o)
  redis.call('ZADD', base .. 'hs', 'inf', '')
  redis.call('UNLINK', base .. 'dropped')
  redis.call('ZADD', base .. 'dropped', 'inf', '')
  -- Who is there is asked anew: clients that nobody lets in again are signed off in silence.
  redis.call('UNLINK', base .. 'ws', base .. 'ajax', base .. 'b')
  for _, worker in ipairs(redis.call('ZRANGE', base .. 'leases', 0, -1)) do
    local over = worker .. '!' .. ARGV[1]
    redis.call('ZREM', base .. 'leases', worker)
    if redis.call('EXISTS', base .. 'w:' .. worker) == 1 then
      redis.call('RENAME', base .. 'w:' .. worker, base .. 'w:' .. over)
      redis.call('ZADD', base .. 'leases', 0, over)
    end
  end
end
if ARGV[2] ~= '' then
  live(9000)  -- until its first lease
elseif not span then
  redis.call('HSET', mkey, 'span', SPAN)
end
local m = counter()
if ARGV[6] ~= '' and ARGV[6] ~= m.epoch then
  redis.call('HSET', mkey, 'anew', text(m.now))
elseif begins and ARGV[2] == '' then  -- a publisher: processes have ten seconds to say so
  redis.call('HSET', mkey, 'anew', text(m.now - 1000 * while_fresh(m) + 10000000))
end
if ARGV[2] ~= '' then
  redis.call('HSET', base .. 'limits', ARGV[7],
    table.concat({ARGV[2], ARGV[3], ARGV[4], text(m.ms + 30000)}, ' '))
  agree(m)
  if tonumber(ARGV[9]) > tonumber(redis.call('HGET', mkey, 'kept') or 0) then
    redis.call('HSET', mkey, 'kept', ARGV[9])  -- the longest of all workers
  end
end
m.o = math.max(m.o, m.now, known)
redis.call('HSET', mkey, 'o', text(m.o))
if begins then
  redis.call('PUBLISH', base .. '*', table.concat({SCHEMA, 'E', m.epoch, began_at(), run}, ' '))
end
return {m.epoch, text(m.o), policy or '', run, began_at(), text(m.clock)}
""",
    schema.CENSUS,
    _HISTORY,
    _PRESENCE,
    _LIMITS,
)
"""At the start of every connection: whether the counter is still the one it was."""

PUBLISH = Script(
    """
-- channel, pubsub, event, exclude, flush, slot, number
local channel = ARGV[1]
local m = counter()
if not m then return LOST end
-- A request that was repeated may arrive twice, and the first after the second.
local number, done = string.match(redis.call('GET', base .. 'r:' .. ARGV[6]) or '', '^(%d+) (%d+)')
if number == ARGV[7] then return done end
local kind = string.sub(channel, 1, 2)
if ARGV[2] == '*' then kind = '' end  -- a close is for those, too, who are being let in
if kind == 'u:' then
  local uid = string.sub(channel, 3)
  if not there(uid) and not young(m) then
    drop_event(m, uid)
    return false
  end
elseif kind == 'c:' then
  local id, uid = string.match(channel, '^c:([^:]*):?(.*)$')
  if redis.call('HEXISTS', base .. 'c:' .. uid, id) == 0
    and redis.call('EXISTS', base .. 'a:' .. id .. ':' .. uid, base .. 'g:' .. uid) == 0
    and not young(m) then return false end
end
local o = append(m, channel, ARGV[2], ARGV[3], ARGV[4], ARGV[5])
redis.call('SET', base .. 'r:' .. ARGV[6], ARGV[7] .. ' ' .. o, 'PX', 60000)
if ARGV[2] == '*' and channel ~= '*' then
  -- A client between two polls hears of the close by its next one, which may reach another worker
  -- before its own has read this.
  local only, of = string.match(channel, '^c:([^:]*):?(.*)$')
  local uids = {of or string.sub(channel, 3)}  -- of all who are anonymous: ''
  if string.sub(channel, 1, 2) == 't:' then
    uids = redis.call('SMEMBERS', base .. 'k:' .. string.sub(channel, 3))
  end
  local kept = redis.call('HGET', base .. 'm', 'kept') or 10000
  for _, uid in ipairs(uids) do
    local held = redis.call('HGETALL', base .. 'c:' .. uid)
    for i = 1, #held, 2 do
      local okind, v1, digest = string.match(held[i + 1], '^%S+ %S+ (%S+) (%S+) (%S+)')
      if okind == 'ajax' and v1 == '1' and (not only or only == held[i]) then
        local said = digest .. ' ' .. ARGV[3]
        redis.call('SET', base .. 'x:' .. held[i] .. ':' .. uid, said, 'PX', kept)
      end
    end
  end
end
return o
""",
    _HISTORY,
    _DROP,
)
"""Assign an offset, keep the event and send it to the workers: its offset, nil for an absentee."""

SINCE = Script(
    """
-- cursor, page bytes, then channel, joined ...
local m = counter()
if not m then return LOST end
local cursor, most = tonumber(ARGV[1]), tonumber(ARGV[2])
if not redis.call('ZSCORE', base .. 'hs', '') then  -- deleted: which channels had events is lost
  rise(m)
  raise_floor(m, m.o)
  redis.call('ZADD', base .. 'hs', 'inf', '')
end
local floor = tonumber(redis.call('HGET', base .. 'm', 'floor') or 0)
local out, high, more = {}, math.max(m.o, cursor), 0
local incomplete = {m.epoch, text(m.o), 0, 0}
-- A gap is told between the last event and the next: that is where its client is then.
if cursor > m.o + 1 or cursor < math.max(floor, m.now - m.window * 1000) then
  return incomplete
end
for i = 3, #ARGV, 2 do
  local channel, from = ARGV[i], math.max(cursor, tonumber(ARGV[i + 1]))
  local skey = base .. 's:' .. channel
  local last = tonumber(redis.call('HGET', base .. 'h:' .. channel, 'last'))
  if not last and tonumber(redis.call('ZSCORE', base .. 'hs', channel) or 0) > from then
    return incomplete
  end
  local size, at = 0, from
  while last and last > at do
    local found = redis.call('XRANGE', skey, '(' .. text(at) .. '-0', '+', 'COUNT', 32)
    if #found == 0 then return incomplete end
    for _, entry in ipairs(found) do
      local o = string.match(entry[1], '^%d+')
      if tonumber(entry[2][2]) > at then return incomplete end  -- one before it is missing
      at, size = tonumber(o), size + #entry[2][4]
      out[#out + 1] = {channel, o, entry[2][2], entry[2][4], entry[2][6]}
      if size > most then break end
    end
    if size > most and at < last then
      more = 1
      if at < high then high = at end
      break
    end
  end
end
return {m.epoch, text(high), more, 1, out}
""",
    _HISTORY,
)
"""What channels had after a cursor, up to where all of them were read; whether that is all."""

ATTACH = Script(
    """
-- uid, id, token, worker, kind, v1, lease (ms), most clients, token before, digest of the secret,
-- silent
local uid, id, token, me, kind, v1 = unpack(ARGV, 1, 6)
local before, digest, silent = ARGV[9], ARGV[10], ARGV[11] == '1'
local m = counter()
if not m then return LOST end
local ckey = base .. 'c:' .. uid
local began, held = held_by(m, uid, id)
-- A client that was there when the epoch began is let in again silently: it was told that its user
-- came. Another worker may have told that again, of a user whom it saw first in this epoch (n):
-- then a closing is told that belongs before. From then on (q) what was told in this epoch follows
-- what was told before it.
local ended = ''
if silent then redis.call('HSET', base .. 'm', 'anew', text(m.now)) end
if silent and began == 'n' and uid ~= '' then
  began, ended = 'q', began_at()
  redis.call('HSET', ckey, '', m.epoch .. ' q')
end
local cursor, okind, otoken, oworker, ov1, odigest = '', nil, nil, nil, nil, nil
local said = kind == 'poll' and redis.call('GET', base .. 'x:' .. id .. ':' .. uid)
if said and string.match(said, '^%S+') == digest then
  redis.call('DEL', base .. 'x:' .. id .. ':' .. uid)
  return {'closed', string.match(said, ' (.*)$')}
end
if held then
  otoken, oworker, okind, ov1, odigest, cursor =
    string.match(held, '^(%S+) (%S+) (%S+) (%S+) (%S+) ?(%d*)')
  local mine = uid ~= '' or odigest == digest
  if before ~= '' then
    -- While a worker was not known here, whoever came first took the id; its client never went, and
    -- gets it back.
    if otoken ~= before and mine then return {'late', ended} end
  elseif not mine then
    return {'held'}
  end
  local lease = tonumber(redis.call('ZSCORE', base .. 'leases', oworker) or 0)
  -- A poll that was on its way while its client changed to WebSocket changes nothing.
  if kind == 'poll' and okind == 'ws' and lease > m.ms then return {'late', ended} end
  if kind == 'try' and okind == 'ajax' and ov1 == '1' and lease > m.ms then
    return {'trial', text(m.o), dropped(m, uid), redis.call('HGETALL', base .. 'j:' .. uid)}
  end
elseif uid ~= '' and began and redis.call('HLEN', ckey) > tonumber(ARGV[8]) then
  return {'full', ended}
end
-- The next close that it hears is a later one.
redis.call('DEL', base .. 'x:' .. id .. ':' .. uid)
if kind == 'poll' then kind = 'ajax' elseif kind == 'try' then kind = 'ws' end
local first = not began
local came = first
if first then
  local told = uid ~= '' and fresh(m) and redis.call('HGET', base .. 'b', uid)
  began = told or 'n'
  if silent and uid ~= '' then
    if told == 'n' then ended = began_at() elseif not told then came = false end
    began = 'q'
  end
  redis.call('DEL', ckey)  -- of an epoch that is over
  redis.call('HSET', ckey, '', m.epoch .. ' ' .. began)
end
local field = id .. ':' .. uid
if held and oworker ~= me then
  redis.call('HDEL', base .. 'w:' .. oworker, field)
  redis.call('PUBLISH', base .. 'w:' .. oworker, SCHEMA .. ' R ' .. otoken .. ' ' .. field)
end
redis.call('HSET', base .. 'w:' .. me, field, token)
redis.call('ZADD', base .. 'leases', 'NX', text(m.ms + tonumber(ARGV[7])), me)
if okind ~= kind then
  if okind then count(okind, uid, -1) end
  count(kind, uid, 1)
end
local o = rise(m)
-- What a WebSocket is given nobody notes: its cursor is known again when it is lost.
local kept = ''
if kind == 'ajax' and v1 == '0' then
  kept = cursor
  if kept == '' then kept = o end
end
redis.call('HSET', ckey, id, table.concat({token, me, kind, v1, digest, kept}, ' '))
local topics = {}
if uid ~= '' then
  redis.call('DEL', base .. 'g:' .. uid)
  redis.call('ZREM', base .. 'js', uid)
  topics = redis.call('HGETALL', base .. 'j:' .. uid)
  if first or okind ~= kind then redis.call('PUBLISH', base .. '!', me) end
end
return {'in', o, came and 1 or 0, held and ov1 == v1 and 1 or 0, cursor, m.epoch,
  fresh(m) and (redis.call('GET', base .. 'q:' .. uid) or 0) or '', began_at(),
  dropped(m, uid), ended, topics}
""",
    _PRESENCE,
    _DROP,
    _DROPPED,
)
"""Let a client in here, tell the worker that had it; or what stands against it."""

WAS_HERE = Script(
    """
-- uid
local m = counter()
if not m then return LOST end
local uid = ARGV[1]
local began = held_by(m, uid, '')
if began == 'n' then
  redis.call('HSET', base .. 'c:' .. uid, '', m.epoch .. ' q')
  return began_at()
end
local told = not began and fresh(m) and redis.call('HGET', base .. 'b', uid)
if began or told == 'q' then return 0 end
redis.call('HSET', base .. 'b', uid, 'q')
redis.call('PEXPIRE', base .. 'b', while_fresh(m))
if told == 'n' then return began_at() end
if m.window > 0 then redis.call('SET', base .. 'g:' .. uid, 1, 'PX', m.window) end
return rise(m)
""",
    _PRESENCE,
)
"""A user was here before the epoch began, and has no client here: the closing to be told, or 0."""

HOLDER = Script(
    """
-- uid, id
local m = counter()
if not m then return LOST end
local _, held = held_by(m, ARGV[1], ARGV[2])
return held and string.match(held, '^%S+ %S+ %S+ %S+ (%S+)')
""",
    _PRESENCE,
)
"""The digest of the secret of the client that has this id; nil where there is none."""

DETACH = Script(
    """
-- uid, id, token
local m = counter()
if not m then return LOST end
return drop(m, ARGV[1], ARGV[2], ARGV[3])
""",
    _PRESENCE,
)
"""A client is gone, if its opening is still this one; an offset where it was its user's last."""

LEASE = Script(
    """
-- worker, lease (ms), events, bytes, window (ms)
local m = counter()
if not m then return LOST end
local evicted = string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)')
if evicted ~= redis.call('HGET', base .. 'm', 'evicted') then
  redis.call('HDEL', base .. 'm', 'epoch')  -- anything may be gone: begin anew
  return LOST
end
local lease = tonumber(ARGV[2])
live(lease)
redis.call('HSET', base .. 'limits', ARGV[1],
  table.concat({ARGV[3], ARGV[4], ARGV[5], text(m.ms + 3 * lease)}, ' '))
agree(m)
forget(m, 100)
forget_old_drops(m)
end_memberships(m, 100)
local mine = tonumber(redis.call('ZSCORE', base .. 'leases', ARGV[1]))
redis.call('ZADD', base .. 'leases', text(m.ms + lease), ARGV[1])
local o = text(math.max(m.o, m.now))
redis.call('HSET', base .. 'm', 'o', o)
redis.call('PUBLISH', base .. 'w:' .. ARGV[1], SCHEMA .. ' P ' .. m.epoch .. ' ' .. o)
local reaped = redis.call('DEL', base .. 'd:' .. ARGV[1])
local known = reaped == 1 and -1 or mine and 1 or 0
local late = (not mine or mine < m.ms + lease / 2) and 1 or 0
-- After a restart everybody's lease is over: give them time to come.
local dead = 0
if m.now - tonumber(began_at()) >= 1000 * lease then
  dead = redis.call('ZCOUNT', base .. 'leases', '-inf', text(m.ms))
end
return {m.epoch, o, known, late, dead, began_at(), text(m.clock), m.events, m.bytes, m.window}
""",
    schema.CENSUS,
    _HISTORY,
    _DROP,
    _DROPPED,
    _PRESENCE,
    _LIMITS,
)
"""Go on living, and hear so by the subscription: in which epoch, was this one known, was it late,
how many others are; Redis' clock, and the limits that hold. Known: 1, 0 where it had no lease, -1
where its clients were signed off."""

REAP = Script(
    """
-- most clients of one call
local m = counter()
if not m then return LOST end
local worker = redis.call('ZRANGEBYSCORE', base .. 'leases', '-inf', text(m.ms), 'LIMIT', 0, 1)[1]
if not worker then return {0} end
local wkey, gone = base .. 'w:' .. worker, {0}
redis.call('SET', base .. 'd:' .. worker, 1, 'PX', 3600000)  -- if it lives, it is told
local seen = redis.call('HRANDFIELD', wkey, ARGV[1], 'WITHVALUES')
for i = 1, #seen, 2 do
  local id, uid = string.match(seen[i], '^([^:]*):(.*)$')
  local o = drop(m, uid, id, seen[i + 1], worker)
  if o ~= 0 and uid ~= '' then
    gone[#gone + 1] = uid
    gone[#gone + 1] = o
  end
  redis.call('HDEL', wkey, seen[i])
end
if redis.call('EXISTS', wkey) == 0 then
  redis.call('ZREM', base .. 'leases', worker)
else
  gone[1] = 1
end
return gone
""",
    _PRESENCE,
)
"""Sign off clients of a worker that is no more: whether there are more, and who went, and when."""

EXPECT = Script("""
-- uid, ms
local m = counter()
if not m then return LOST end
local ms = math.min(tonumber(ARGV[2]), m.window)
if ms > 0 then redis.call('SET', base .. 'p:' .. ARGV[1], 1, 'PX', text(ms)) end
return 1
""")
"""A page was rendered for a user: events to them are kept for a while."""

ACK = Script(
    """
-- uid, id, token, offset
local m = counter()
if not m then return LOST end
local _, held = held_by(m, ARGV[1], ARGV[2])
if not held then return fresh(m) and 1 or 0 end  -- about to be let in again
local start, rest = string.match(held, '^(%S+ %S+ %S+ %S+ %S+) ?%d*(.*)$')
if string.match(start, '^%S+') ~= ARGV[3] then return 0 end
redis.call('HSET', base .. 'c:' .. ARGV[1], ARGV[2], start .. ' ' .. ARGV[4] .. rest)
return 1
""",
    _PRESENCE,
)
"""Keep how far a client without a cursor of its own was served; 0: it is another worker's."""

JOIN = Script(
    """
-- uid, topic, control event, most topics, only what a counter that began anew forgot?
local m = counter()
if not m then return LOST end
local uid, topic, again = ARGV[1], ARGV[2], ARGV[5] == '1'
local jkey = base .. 'j:' .. uid
local since = tonumber(redis.call('HGET', jkey, topic))
if again then
  if redis.call('HEXISTS', base .. 'l:' .. uid, topic) == 1 then return 0 end
  if not since and not fresh(m) then return -2 end  -- whether they left since is not known
  if since and (since <= tonumber(began_at()) or not fresh(m)) then return 0 end
  redis.call('HSET', base .. 'm', 'anew', text(m.now))
elseif since then
  return 0
end
if not since and redis.call('HLEN', jkey) >= tonumber(ARGV[4]) then return -1 end
local o
if again then
  -- A member before the epoch began has been one ever since.
  o = began_at()
  if redis.call('EXISTS', base .. 'c:' .. uid) == 1 then
    append(m, 'u:' .. uid, 'u:' .. uid, ARGV[3] .. o .. ']]', '', 0)
  end
elseif there(uid) or young(m) then
  o = append(m, 'u:' .. uid, 'u:' .. uid, ARGV[3], '', 0)
else
  o = rise(m)
end
redis.call('HSET', jkey, topic, o)
if again then redis.call('SET', base .. 'q:' .. uid, text(m.o), 'PX', while_fresh(m)) end
if redis.call('EXISTS', base .. 'c:' .. uid) == 0 then leave_topics_later(m, uid) end
redis.call('SADD', base .. 'k:' .. topic, uid)
end_memberships(m, 2)
return 1
""",
    _HISTORY,
    _PRESENCE,
)
"""Make a user a member: 1; 0 where they were one, -1 where they are in too many topics, -2 where it
is too late to say that they were one when the counter began anew."""

LEAVE = Script(
    """
-- uid, topic, control event
local m = counter()
if not m then return LOST end
local uid, topic = ARGV[1], ARGV[2]
redis.call('SREM', base .. 'k:' .. topic, uid)
local was = redis.call('HDEL', base .. 'j:' .. uid, topic)
if fresh(m) then  -- perhaps a process knows of a membership that is not known here yet
  was = math.max(was, redis.call('HSET', base .. 'l:' .. uid, topic, 1))
  redis.call('PEXPIRE', base .. 'l:' .. uid, while_fresh(m))
end
if was == 0 then return 0 end
if redis.call('EXISTS', base .. 'j:' .. uid) == 0 then redis.call('ZREM', base .. 'js', uid) end
if there(uid) or young(m) then
  append(m, 'u:' .. uid, 'u:' .. uid, ARGV[3], '', 0)
end
return was
""",
    _HISTORY,
    _PRESENCE,
)
"""End a membership: 1; 0 where there was none."""

MEMBERS = Script("""
-- topic
if not counter() then return LOST end
local kkey, members = base .. 'k:' .. ARGV[1], {}
for _, uid in ipairs(redis.call('SMEMBERS', kkey)) do
  if redis.call('HEXISTS', base .. 'j:' .. uid, ARGV[1]) == 1 then
    members[#members + 1] = uid
  else
    redis.call('SREM', kkey, uid)  -- absent for a day
  end
end
return members
""")
"""The users of a topic."""

CONNECTED = Script("""
if not counter() then return LOST end
return {redis.call('HKEYS', base .. 'ws'), redis.call('HKEYS', base .. 'ajax')}
""")
"""The users that are connected, by transport."""

CLIENTS = Script(
    """
-- uid
local m = counter()
if not m then return LOST end
if not held_by(m, ARGV[1], '') then return {} end
local ids, held = {}, redis.call('HGETALL', base .. 'c:' .. ARGV[1])
for i = 1, #held, 2 do
  if string.match(held[i + 1], '^%S+ %S+ %S+ (%S+)') == '1' then ids[#ids + 1] = held[i] end
end
return ids
""",
    _PRESENCE,
)
"""A user's clients that can be asked."""

WORKERS = Script("""
local m = counter()
if not m then return LOST end
return redis.call('ZRANGEBYSCORE', base .. 'leases', text(m.ms), '+inf')
""")
"""The workers that live."""

TELL = Script("""
-- worker, text
return redis.call('PUBLISH', base .. 'w:' .. ARGV[1], SCHEMA .. ' T ' .. ARGV[2])
""")
"""Say something to one worker."""

CLAIM = Script(
    """
-- client, key, token, most keys of a client, most bytes of all
local m = counter()
if not m then return LOST end
local ykey, key, mine = base .. 'y:' .. ARGV[1], 'k' .. ARGV[2], '?' .. ARGV[3]
local held = redis.call('HGET', ykey, key)
if held == mine then return false end
if held then return held end
local n = redis.call('HINCRBY', ykey, 'n', 1)
local by = 2 * #key + #mine + 150  -- and what Redis takes for it
if n == 1 then  -- what there was has expired
  by = by - tonumber(redis.call('HGET', base .. 'yb', ARGV[1]) or 0)
end
local slot = 's' .. n % tonumber(ARGV[4])
local oldest = redis.call('HGET', ykey, slot)
if oldest then
  by = by - 2 * #oldest - #redis.call('HGET', ykey, oldest) - 150
  redis.call('HDEL', ykey, oldest)
end
redis.call('HSET', ykey, slot, key, key, mine)
redis.call('PEXPIRE', ykey, key_ms(m))
weigh(m, ARGV[1], by, tonumber(ARGV[5]))
return false
""",
    _SENDS,
)
"""Take a send that may come again for one process; else what is known of it."""

KEEP_REPLY = Script(
    """
-- client, key, reply, most bytes of all
local m = counter()
if not m then return LOST end
local ykey, key = base .. 'y:' .. ARGV[1], 'k' .. ARGV[2]
local held = redis.call('HGET', ykey, key)
if not held then return 0 end
redis.call('HSET', ykey, key, '=' .. ARGV[3])
redis.call('PEXPIRE', ykey, key_ms(m))
weigh(m, ARGV[1], #ARGV[3] + 1 - #held, tonumber(ARGV[4]))
return 1
""",
    _SENDS,
)
"""Keep the reply to such a send."""

RETIRE = Script(
    """
-- worker, ms it has left
local m = counter()
if not m then return LOST end
redis.call('ZADD', base .. 'leases', 'XX', text(m.ms + tonumber(ARGV[2])), ARGV[1])
redis.call('HDEL', base .. 'limits', ARGV[1])
agree(m)
return 1
""",
    _HISTORY,
    _LIMITS,
)
"""Let a lease end soon: what this worker still had is signed off by another."""
