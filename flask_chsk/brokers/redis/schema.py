"""The number of the format in which workers write keys and messages in Redis.

Workers of neighbouring numbers serve side by side, so that a deploy can replace them one after
another. Others are refused: each script that a worker or publisher calls compares its own number
with those in use, and changes nothing where they are not neighbours.

How the format changes:

- Whoever changes what is written raises :data:`SCHEMA` by one, once for each release.
- Fields are added: to a hash, at the end of an entry of a stream, at the end of the words of a
  message's head or of a client's record (``c:``). Values that are a single word or end in free text
  (``j: w: x: y:``) stay as they are.
- A reader ignores fields and kinds of message that it does not know, and does without fields that
  it does know: a neighbour wrote, or wrote anew, a record without them.
- What a reader of the number before would misunderstand is written only where ``span`` of ``m``,
  the lowest and highest number among the living workers, says that there is none. The release
  after that writes it always.
- Memberships are kept for a day, so a release understands those of the two before it.
"""

from __future__ import annotations

SCHEMA = 1


def understood(number: int) -> bool:
    """Whether what was written with *number* can be read."""
    return abs(number - SCHEMA) <= 1


def refusal(where: str, base: str, low: int, high: int, alive: bool) -> str:
    """Why a Redis whose numbers are *low* to *high* cannot be used, and what to do."""
    found = f"{low}" if low == high else f"{low} to {high}"
    if low < 0:
        found = "before numbers"
    if alive:
        return (
            f"workers with schema {found} serve at the Redis at {where}, this process has schema"
            f" {SCHEMA}, and only neighbours understand each other: end those workers first, or"
            " deploy a version between"
        )
    pattern = f"{base}*"
    return (
        f"the keys {pattern} of the Redis at {where} have schema {found}, this process has schema"
        f" {SCHEMA}, and only neighbours understand each other: deploy a version between, or, with"
        " no worker running, delete these keys, or set another ?prefix= in CHSK_BROKER_URL"
    )


COUNTED = f"""
local SCHEMA, SPAN = {SCHEMA}, '{SCHEMA} {SCHEMA}'
local LOST = redis.error_reply('NOEPOCH the counter is gone')
local function strange(span)
  local low, high = string.match(span, '^(%S+) (%S+)')
  return tonumber(low) < SCHEMA - 1 or tonumber(high) > SCHEMA + 1
end
"""
"""Lua for each script: ``LOST`` is what it returns where it must not go on."""

CENSUS = """
-- The lowest and highest schema: of the workers that live, else of what is kept; nil: nothing is.
-- Then whether workers live, and the time (ms).
local function census()
  local t, low, high = redis.call('TIME'), nil, nil
  local ms = t[1] * 1000 + math.floor(t[2] / 1000)
  local all = redis.call('HGETALL', base .. 'schemas')
  for i = 1, #all, 2 do
    local n = tonumber(all[i])
    if tonumber(all[i + 1]) < ms then
      redis.call('HDEL', base .. 'schemas', all[i])
    else
      low, high = math.min(low or n, n), math.max(high or n, n)
    end
  end
  if low then return low .. ' ' .. high, 1, ms end
  local m = redis.call('HMGET', base .. 'm', 'epoch', 'span')
  return m[1] and (m[2] or '-1 -1'), 0, ms
end
-- A worker of this schema lives, for a lease (ms) from now.
local function live(lease)
  local _, _, ms = census()
  redis.call('HSET', base .. 'schemas', SCHEMA, string.format('%.0f', ms + lease))
  redis.call('HSET', base .. 'm', 'span', (census()))
end
"""
"""Lua for the scripts that come at a connection's start, and with each lease."""
