"""What the Redis broker has Redis do, each as one Lua script: all of it happens, or nothing.

Keys (under one prefix and database number; the variable part last):

===============  ==============================================================================
``m``            the counter: ``epoch run o`` (last offset), limits ``events bytes window``, since
                 when this Redis has the epoch (``since``), and who had another before (``anew``)
``s:<channel>``  stream of a channel's last events, ids ``<offset>-0``; ``p``: the one before
``h:<channel>``  what the stream cannot say: ``last`` offset, ``bytes``, ``count``, ``expires``
``c:<uid>``      clients: id -> ``token worker kind v1 digest cursor``, the digest of the
                 client's secret, ``.`` where it has none; ``c:`` are the anonymous
``g:<uid>``      exists while a user who went is waited for
``w:<worker>``   that worker's clients: ``<id>:<uid>`` -> token
``d:<worker>``   some of them were signed off, as if it were dead
``ws`` ``ajax``  user -> number of their clients on that transport
``leases``       worker -> until when (ms) it counts as living
``j:<uid>``      topics of a user -> offset at which the membership began
``k:<topic>``    users that joined a topic; ``j`` has the last word
``l:<uid>``      topics that a user left since a counter began anew
``x:<client>``   why a client that polls was closed, until its next poll: ``digest code reason``
``y:<send>``     a send that may come again: ``?token`` of who handles it, then ``=reply``
``r:<slot>``     the last publish of one connection, by which a repetition is known
===============  ==============================================================================

Offsets stay below 2^53, so Lua's numbers hold them; its ``tostring`` would round them, so
they are written with ``%.0f``. Not for Redis Cluster: names of keys are made in the scripts.
"""

from __future__ import annotations

import hashlib

_PRELUDE = """
local base = KEYS[1]
local function text(n) return string.format('%.0f', n) end
local function micros()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local function counter()
  local m = redis.call('HMGET', base .. 'm', 'epoch', 'o', 'events', 'bytes', 'window')
  if not m[1] then return nil end
  return {epoch = m[1], o = tonumber(m[2]), events = tonumber(m[3] or 256),
          bytes = tonumber(m[4] or 1048576), window = tonumber(m[5] or 120000)}
end
local LOST = redis.error_reply('NOEPOCH the counter is gone')
local function there(uid)
  return redis.call('EXISTS', base .. 'c:' .. uid, base .. 'g:' .. uid) > 0
end
-- For a minute after the counter began anew: processes let their clients in again, one by one.
local function young()
  return micros() - tonumber(redis.call('HGET', base .. 'm', 'anew') or 0) < 60000000
end
local function rise(m)
  local now, offset = micros(), m.o + 1
  if now > offset then offset = now end
  local o = text(offset)
  m.o = offset
  redis.call('HSET', base .. 'm', 'o', o)
  return o, now
end
local function append(m, channel, pubsub, event, but, flush)
  local o, now = rise(m)
  local skey, hkey = base .. 's:' .. channel, base .. 'h:' .. channel
  local h = redis.call('HMGET', hkey, 'last', 'bytes', 'count', 'expires')
  local before = h[1] or '0'
  local bytes, count = (tonumber(h[2]) or 0) + #event, (tonumber(h[3]) or 0) + 1
  redis.call('XADD', skey, o .. '-0', 'p', before, 't', event, 'b', but)
  -- The events over the limit go an eighth at a time: to find the oldest costs more than it does.
  if bytes > m.bytes or count > m.events + math.floor(m.events / 8) then
    while count > m.events or bytes > m.bytes do
      local oldest = redis.call('XRANGE', skey, '-', '+', 'COUNT', math.max(1, count - m.events))
      if #oldest == 0 then bytes, count = 0, 0 break end
      for _, entry in ipairs(oldest) do
        redis.call('XDEL', skey, entry[1])
        bytes, count = bytes - #entry[2][4], count - 1
      end
    end
  end
  -- Kept longer than any cursor is good for: a channel that was forgotten had nothing since.
  local expires = tonumber(h[4]) or 0
  if expires < now / 1000 + m.window + 30000 then
    expires = now / 1000 + m.window + 60000
    redis.call('HSET', hkey, 'expires', text(expires))
    redis.call('PEXPIREAT', skey, text(expires))
    redis.call('PEXPIREAT', hkey, text(expires))
  end
  redis.call('HSET', hkey, 'last', o, 'bytes', text(bytes), 'count', text(count))
  redis.call('PUBLISH', base .. pubsub, table.concat(
    {m.epoch, o, #channel, #but, #event, flush}, ' ') .. '\\n' .. channel .. but .. event)
  return o
end
local function count(kind, uid, by)
  if uid ~= '' and redis.call('HINCRBY', base .. kind, uid, by) <= 0 then
    redis.call('HDEL', base .. kind, uid)
  end
end
local function drop(m, uid, id, token)
  local ckey = base .. 'c:' .. uid
  local held = redis.call('HGET', ckey, id)
  if not held then return 0 end
  local t, worker, kind = string.match(held, '^(%S+) (%S+) (%S+)')
  if t ~= token then return 0 end
  redis.call('HDEL', ckey, id)
  redis.call('HDEL', base .. 'w:' .. worker, id .. ':' .. uid)
  count(kind, uid, -1)
  if redis.call('EXISTS', ckey) == 1 then return 0 end
  local o = rise(m)
  if uid ~= '' then
    if m.window > 0 then redis.call('SET', base .. 'g:' .. uid, 1, 'PX', m.window) end
    redis.call('PEXPIRE', base .. 'j:' .. uid, 86400000)
    redis.call('PUBLISH', base .. '!', worker)
  end
  return o
end
"""


class Script:
    """A script, the name Redis knows it by, and how commands that call it begin."""

    __slots__ = ("heads", "sha", "text")

    def __init__(self, body: str) -> None:
        self.heads: dict[tuple[str, int], bytes] = {}  # for keys and a number of arguments
        self.text = _PRELUDE + body
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


HELLO = Script("""
-- new epoch, events, bytes, window (ms; '' from who has none to say), an epoch that is over, the
-- one that was known
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local policy = string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:([%w-]+)')
local m = redis.call('HMGET', base .. 'm', 'epoch', 'run', 'o')
local epoch, now = m[1], micros()
if not epoch or m[2] ~= run or epoch == ARGV[5] then
  epoch = ARGV[1]
  redis.call('HSET', base .. 'm', 'epoch', epoch, 'run', run, 'since', text(now))
  m[1] = false
end
if ARGV[6] ~= '' and ARGV[6] ~= epoch then
  redis.call('HSET', base .. 'm', 'anew', text(now))
end
if ARGV[2] ~= '' then
  redis.call('HSET', base .. 'm', 'events', ARGV[2], 'bytes', ARGV[3], 'window', ARGV[4])
end
local o = tonumber(m[3] or 0)
if now > o then o = now end
redis.call('HSET', base .. 'm', 'o', text(o))
if not m[1] then
  redis.call('PUBLISH', base .. '*', table.concat({'E', epoch, text(o), run}, ' '))
end
return {epoch, text(o), policy or '', run}
""")
"""At the start of every connection: whether the counter is still the one it was."""

PUBLISH = Script("""
-- channel, pubsub, event, but, flush, slot, number
local channel = ARGV[1]
local m = counter()
if not m then return LOST end
-- A request that was repeated may arrive twice, and the first after the second.
local number, done = string.match(redis.call('GET', base .. 'r:' .. ARGV[6]) or '', '^(%d+) (%d+)')
if number == ARGV[7] then return done end
local kind = string.sub(channel, 1, 2)
if kind == 'u:' then
  if not there(string.sub(channel, 3)) and not young() then return false end
elseif kind == 'c:' then
  local id, uid = string.match(channel, '^c:([^:]*):?(.*)$')
  if redis.call('HEXISTS', base .. 'c:' .. uid, id) == 0
    and redis.call('EXISTS', base .. 'g:' .. uid) == 0 and not young() then return false end
end
local o = append(m, channel, ARGV[2], ARGV[3], ARGV[4], ARGV[5])
redis.call('SET', base .. 'r:' .. ARGV[6], ARGV[7] .. ' ' .. o, 'PX', 60000)
return o
""")
"""Assign an offset, keep the event and send it to the workers: its offset, nil for an absentee."""

SINCE = Script("""
-- cursor, page bytes, then channel, joined ...
local m = counter()
if not m then return LOST end
local cursor, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local out, high, more = {}, m.o, 0
if cursor > m.o or cursor < micros() - m.window * 1000 then return {m.epoch, text(m.o), 0, 0} end
for i = 3, #ARGV, 2 do
  local channel, from = ARGV[i], math.max(cursor, tonumber(ARGV[i + 1]))
  local last = tonumber(redis.call('HGET', base .. 'h:' .. channel, 'last') or 0)
  local size, first = 0, true
  local at = from
  while last > at do
    local found = redis.call('XRANGE', base .. 's:' .. channel, '(' .. text(at) .. '-0', '+',
      'COUNT', 32)
    if first and (#found == 0 or tonumber(found[1][2][2]) > from) then
      return {m.epoch, text(m.o), 0, 0}
    end
    first = false
    if #found == 0 then break end
    for _, entry in ipairs(found) do
      local o = string.match(entry[1], '^%d+')
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
""")
"""What channels had after a cursor, up to where all of them were read; whether that is all."""

ATTACH = Script("""
-- uid, id, token, worker, kind, v1, lease (ms), most clients, token before, digest of the secret
local uid, id, token, me, kind, v1 = unpack(ARGV, 1, 6)
local before, digest = ARGV[9], ARGV[10]
local m = counter()
if not m then return LOST end
local ckey, now = base .. 'c:' .. uid, micros()
local ms = math.floor(now / 1000)
local held = redis.call('HGET', ckey, id)
local cursor, okind, otoken, oworker, ov1, odigest = '', nil, nil, nil, nil, nil
local said = kind == 'poll' and redis.call('GET', base .. 'x:' .. id .. ':' .. uid)
if held then
  otoken, oworker, okind, ov1, odigest, cursor =
    string.match(held, '^(%S+) (%S+) (%S+) (%S+) (%S+) ?(%d*)$')
  local mine = uid ~= '' or odigest == digest
  if before ~= '' then
    -- Where a counter began anew, whoever came first took the id; who had it before gets it back.
    if otoken ~= before and (mine or not young()) then return {'late'} end
  elseif not mine then
    return {'held'}
  end
  local lease = tonumber(redis.call('ZSCORE', base .. 'leases', oworker) or 0)
  -- A poll that was on its way while its client changed to WebSocket changes nothing.
  if kind == 'poll' and okind == 'ws' and lease > ms then return {'late'} end
  if kind == 'try' and okind == 'ajax' and ov1 == '1' and lease > ms then
    return {'trial', text(m.o), redis.call('HGETALL', base .. 'j:' .. uid)}
  end
elseif said and string.match(said, '^%S+') == digest then
  redis.call('DEL', base .. 'x:' .. id .. ':' .. uid)
  return {'farewell', string.match(said, ' (.*)$')}
elseif uid ~= '' and redis.call('HLEN', ckey) >= tonumber(ARGV[8]) then
  return {'full'}
end
if kind == 'poll' then kind = 'ajax' elseif kind == 'try' then kind = 'ws' end
local first = redis.call('EXISTS', ckey) == 0
local field = id .. ':' .. uid
if held and oworker ~= me then
  redis.call('HDEL', base .. 'w:' .. oworker, field)
  redis.call('PUBLISH', base .. 'w:' .. oworker, 'R ' .. otoken .. ' ' .. field)
end
redis.call('HSET', base .. 'w:' .. me, field, token)
redis.call('ZADD', base .. 'leases', 'NX', ms + tonumber(ARGV[7]), me)
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
  redis.call('PERSIST', base .. 'j:' .. uid)
  topics = redis.call('HGETALL', base .. 'j:' .. uid)
  if first or okind ~= kind then redis.call('PUBLISH', base .. '!', me) end
end
return {'in', o, first and 1 or 0, held and ov1 == v1 and 1 or 0, cursor, topics}
""")
"""Let a client in here, tell the worker that had it; or what stands against it."""

HOLDER = Script("""
-- uid, id
local held = redis.call('HGET', base .. 'c:' .. ARGV[1], ARGV[2])
return held and string.match(held, '^%S+ %S+ %S+ %S+ (%S+)')
""")
"""The digest of the secret of the client that has this id; nil where there is none."""

DETACH = Script("""
-- uid, id, token
local m = counter()
if not m then return LOST end
return drop(m, ARGV[1], ARGV[2], ARGV[3])
""")
"""A client is gone, if its opening is still this one; an offset where it was its user's last."""

LEASE = Script("""
-- worker, lease (ms)
local m = counter()
if not m then return LOST end
local now, lease = micros(), tonumber(ARGV[2])
local ms = math.floor(now / 1000)
local mine = tonumber(redis.call('ZSCORE', base .. 'leases', ARGV[1]))
redis.call('ZADD', base .. 'leases', ms + lease, ARGV[1])
local o = m.o
if now > o then
  o = now
  redis.call('HSET', base .. 'm', 'o', text(o))
end
redis.call('PUBLISH', base .. 'w:' .. ARGV[1], 'P ' .. m.epoch .. ' ' .. text(o))
local reaped = redis.call('DEL', base .. 'd:' .. ARGV[1])
local known = mine and reaped == 0 and 1 or 0
local late = (not mine or mine < ms + lease / 2) and 1 or 0
-- After a restart everybody's lease is over: give them time to come.
local since = tonumber(redis.call('HGET', base .. 'm', 'since') or 0)
local dead = 0
if now - since >= 1000 * lease then dead = redis.call('ZCOUNT', base .. 'leases', '-inf', ms) end
return {m.epoch, text(o), known, late, dead}
""")
"""Go on living, and hear so by the subscription: in which epoch, was this one known, was it late,
how many others are."""

REAP = Script("""
-- most clients of one call
local m = counter()
if not m then return LOST end
local ms = math.floor(micros() / 1000)
local worker = redis.call('ZRANGEBYSCORE', base .. 'leases', '-inf', ms, 'LIMIT', 0, 1)[1]
if not worker then return {0} end
local wkey, gone = base .. 'w:' .. worker, {0}
redis.call('SET', base .. 'd:' .. worker, 1, 'PX', 3600000)  -- if it lives, it is told
local seen = redis.call('HRANDFIELD', wkey, ARGV[1], 'WITHVALUES')
for i = 1, #seen, 2 do
  local id, uid = string.match(seen[i], '^([^:]*):(.*)$')
  local o = drop(m, uid, id, seen[i + 1])
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
""")
"""Sign off clients of a worker that is no more: whether there are more, and who went, and when."""

TAKE = Script("""
-- uid, id, token, offset
local ckey = base .. 'c:' .. ARGV[1]
local held = redis.call('HGET', ckey, ARGV[2])
if not held then return 0 end
local start = string.match(held, '^%S+ %S+ %S+ %S+ %S+')
if string.match(start, '^%S+') ~= ARGV[3] then return 0 end
redis.call('HSET', ckey, ARGV[2], start .. ' ' .. ARGV[4])
return 1
""")
"""Keep how far a client without a cursor of its own was served; 0: it is another worker's."""

JOIN = Script("""
-- uid, topic, control event, most topics, only what a counter that began anew forgot?
local m = counter()
if not m then return LOST end
local jkey = base .. 'j:' .. ARGV[1]
if ARGV[5] == '1' then
  if not young() or redis.call('HEXISTS', base .. 'l:' .. ARGV[1], ARGV[2]) == 1 then return 0 end
end
if redis.call('HEXISTS', jkey, ARGV[2]) == 1 then return 0 end
if redis.call('HLEN', jkey) >= tonumber(ARGV[4]) then return -1 end
local o
if there(ARGV[1]) or young() then
  o = append(m, 'u:' .. ARGV[1], 'u:' .. ARGV[1], ARGV[3], '', 0)
else
  o = rise(m)
end
redis.call('HSET', jkey, ARGV[2], o)
redis.call('HDEL', base .. 'l:' .. ARGV[1], ARGV[2])
if redis.call('EXISTS', base .. 'c:' .. ARGV[1]) == 0 then
  redis.call('PEXPIRE', jkey, 86400000)
end
redis.call('SADD', base .. 'k:' .. ARGV[2], ARGV[1])
return 1
""")
"""Make a user a member: 1; 0 where they were one, -1 where they are in too many topics."""

LEAVE = Script("""
-- uid, topic, control event
local m = counter()
if not m then return LOST end
redis.call('SREM', base .. 'k:' .. ARGV[2], ARGV[1])
if young() then
  redis.call('HSET', base .. 'l:' .. ARGV[1], ARGV[2], 1)
  redis.call('PEXPIRE', base .. 'l:' .. ARGV[1], 60000)
elseif redis.call('HEXISTS', base .. 'j:' .. ARGV[1], ARGV[2]) == 0 then
  return 0
end
local was = redis.call('HDEL', base .. 'j:' .. ARGV[1], ARGV[2])
if there(ARGV[1]) or young() then
  append(m, 'u:' .. ARGV[1], 'u:' .. ARGV[1], ARGV[3], '', 0)
end
return was
""")
"""End a membership: 1; 0 where there was none."""

MEMBERS = Script("""
-- topic
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
return {redis.call('HKEYS', base .. 'ws'), redis.call('HKEYS', base .. 'ajax')}
""")
"""The users that are connected, by transport."""

CLIENTS = Script("""
-- uid
local ids, held = {}, redis.call('HGETALL', base .. 'c:' .. ARGV[1])
for i = 1, #held, 2 do
  if string.match(held[i + 1], '^%S+ %S+ %S+ (%S+)') == '1' then ids[#ids + 1] = held[i] end
end
return ids
""")
"""A user's clients that can be asked."""

TELL = Script("""
-- worker, text
return redis.call('PUBLISH', base .. 'w:' .. ARGV[1], 'T ' .. ARGV[2])
""")
"""Say something to one worker."""

FAREWELL = Script("""
-- client, code and reason, ms
return redis.call('SET', base .. 'x:' .. ARGV[1], ARGV[2], 'PX', ARGV[3])
""")
"""Why a client that is between two polls was closed."""

CLAIM = Script("""
-- send, token
local m = counter()
if not m then return LOST end
local key, mine = base .. 'y:' .. ARGV[1], '?' .. ARGV[2]
local held = redis.call('GET', key)
if held and held ~= mine then return held end
redis.call('SET', key, mine, 'PX', math.max(m.window, 1000))
return false
""")
"""Take a send that may come again for one process; else what is known of it."""

SETTLE = Script("""
-- send, reply
local m = counter()
if not m then return LOST end
return redis.call('SET', base .. 'y:' .. ARGV[1], '=' .. ARGV[2],
  'PX', math.max(m.window, 1000), 'XX')
""")
"""Keep the reply to such a send."""

RETIRE = Script("""
-- worker, ms it has left
local now = math.floor(micros() / 1000)
redis.call('ZADD', base .. 'leases', 'XX', now + tonumber(ARGV[2]), ARGV[1])
return 1
""")
"""Let a lease end soon: what this worker still had is signed off by another."""
