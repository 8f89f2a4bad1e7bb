-- Adds a step to the trail of an event that was taken, moves it to running, and reads it.
-- KEYS[1]  event     KEYS[3]  positions of the object   KEYS[4..6]  queued, retrying, parked, zsets
-- KEYS[2]  payload                                      KEYS[7]     running, zset
-- ARGV[1]  step      ARGV[3]  key
-- ARGV[2]  how many steps are kept                      ARGV[4]     lifetime of the lane's keys, ms
-- Returns the fields of the event, of the payload and of the positions; nil if the event is past its retention.
local received = redis.call('HGET', KEYS[1], 'received')
if not received then
  return false
end
local steps = redis.call('HINCRBY', KEYS[1], 'steps', 1)
redis.call('HSET', KEYS[1], 'state', 'running', 's' .. steps, ARGV[1])
redis.call('HDEL', KEYS[1], 's' .. (steps - tonumber(ARGV[2])))
if redis.call('ZADD', KEYS[7], received, ARGV[3]) == 1 then
  redis.call('PEXPIRE', KEYS[7], ARGV[4])
  for i = 4, 6 do
    redis.call('ZREM', KEYS[i], ARGV[3])
  end
end
return { redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]) }
