-- Queues a settled event again, once for each name.
-- KEYS[1]  event             KEYS[4]  this redrive in this lane, hash   KEYS[6..9]  the zsets of the settled states
-- KEYS[2]  payload           KEYS[5]  queued, zset                      KEYS[10]    object index
-- KEYS[3]  redrive queue                                               KEYS[11]    from the provider's id to the key
-- ARGV[1]  reference         ARGV[5]  how many steps are kept
-- ARGV[2]  key               ARGV[6]  time between two events of this lane, us
-- ARGV[3]  field of the name ARGV[7]  time before the first event of this lane, us
-- ARGV[4]  step              ARGV[8]  retention of the event, ms
--                            ARGV[9]  lifetime of the lane's keys, ms
-- Returns 1, 0 if the event is left as it is.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'done' and state ~= 'stale' and state ~= 'skipped' and state ~= 'dead' then
  return 0
end
if redis.call('EXISTS', KEYS[2]) == 0 or redis.call('HSETNX', KEYS[1], ARGV[3], 1) == 0 then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local last = redis.call('HGET', KEYS[4], 'last')
local due = now + ARGV[7]
if last then
  due = math.max(now, last + ARGV[6])
end
local dueText = string.format('%.0f', due)
redis.call('HSET', KEYS[4], 'last', dueText)
redis.call('PEXPIRE', KEYS[4], ARGV[9])

local steps = redis.call('HINCRBY', KEYS[1], 'steps', 1)
redis.call('HSET', KEYS[1], 'state', 'queued', 'due', dueText, 's' .. steps, ARGV[4],
  'before', redis.call('HGET', KEYS[1], 'attempts') or '0')
redis.call('HDEL', KEYS[1], 'cause', 'reason', 'waits', 'parked', 'settled', 's' .. (steps - tonumber(ARGV[5])))
redis.call('HINCRBY', KEYS[1], 'redrives', 1)
for i = 1, 2 do
  redis.call('PEXPIRE', KEYS[i], ARGV[8])
end
for i = 10, 11 do
  redis.call('PEXPIRE', KEYS[i], ARGV[8])
end
for i = 6, 9 do
  redis.call('ZREM', KEYS[i], ARGV[2])
end
redis.call('ZADD', KEYS[5], redis.call('HGET', KEYS[1], 'received'), ARGV[2])
redis.call('PEXPIRE', KEYS[5], ARGV[9])
redis.call('ZADD', KEYS[3], dueText, ARGV[1])
redis.call('PEXPIRE', KEYS[3], ARGV[9])
return 1
