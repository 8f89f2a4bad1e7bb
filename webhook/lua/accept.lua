-- Stores a new event and queues it, or counts one more delivery of an event that is stored, in up to four commands.
-- KEYS[1]  event, hash                 KEYS[5..7]  running, retrying, parked, zsets
-- KEYS[2]  payload, hash               KEYS[8]     object index, zset
-- KEYS[3]  queue, zset by due time     KEYS[9]     from the provider's id to the key, string
-- KEYS[4]  queued, zset
-- ARGV[1]  reference (object tag:key)  ARGV[7]  retention of the event, ms
-- ARGV[2]  key                         ARGV[8]  lifetime of the lane's keys, ms
-- ARGV[3]  backlog, 0 for no limit     ARGV[9]  1 to index the object
-- ARGV[4]  received, us                ARGV[10] 1 to index the id
-- ARGV[5]  receipt                     ARGV[11] how many of the arguments after it are the event's
-- ARGV[6]  largest number of receipts  then fields and values of the event, then those of the payload
-- Returns the number of deliveries, 0 if the backlog is full.
if redis.call('EXISTS', KEYS[1]) == 1 then
  local deliveries = redis.call('HINCRBY', KEYS[1], 'deliveries', 1)
  if deliveries <= tonumber(ARGV[6]) then
    redis.call('HSET', KEYS[1], 'r' .. deliveries, ARGV[5])
  end
  if ARGV[10] == '1' then -- it may have come under another id
    redis.call('SET', KEYS[9], ARGV[2], 'PX', ARGV[7])
  end
  return deliveries
end
local backlog = tonumber(ARGV[3])
if backlog > 0 then
  local unsettled = 0
  for i = 4, 7 do
    unsettled = unsettled + redis.call('ZCARD', KEYS[i])
  end
  if unsettled >= backlog then
    return 0
  end
end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
local first, last = 12, 11 + tonumber(ARGV[11])
redis.call('HSET', KEYS[1], 'deliveries', 1, 'r1', ARGV[5], 'received', ARGV[4], 'due', now, unpack(ARGV, first, last))
redis.call('PEXPIRE', KEYS[1], ARGV[7])
redis.call('HSET', KEYS[2], unpack(ARGV, last + 1))
redis.call('PEXPIRE', KEYS[2], ARGV[7])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[2])
for i = 3, 4 do -- a lifetime of years, so it is enough to set it when the zset is made
  if redis.call('ZCARD', KEYS[i]) == 1 then
    redis.call('PEXPIRE', KEYS[i], ARGV[8])
  end
end
if ARGV[9] == '1' then
  redis.call('ZADD', KEYS[8], ARGV[4], ARGV[2])
  redis.call('ZREMRANGEBYSCORE', KEYS[8], '-inf', string.format('%.0f', now - 2000 * ARGV[7]))
  redis.call('PEXPIRE', KEYS[8], ARGV[7])
end
if ARGV[10] == '1' then
  redis.call('SET', KEYS[9], ARGV[2], 'PX', ARGV[7])
end
return 1
