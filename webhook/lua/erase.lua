-- Deletes the payload of a settled event.
-- KEYS[1]  event   KEYS[2]  payload
-- ARGV[1]  step    ARGV[2]  how many steps are kept
-- Returns 1, 0 if the event is not settled or has no payload.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'done' and state ~= 'stale' and state ~= 'skipped' and state ~= 'dead' then
  return 0
end
if redis.call('DEL', KEYS[2]) == 0 then
  return 0
end
local steps = redis.call('HINCRBY', KEYS[1], 'steps', 1)
redis.call('HSET', KEYS[1], 'erased', 1, 's' .. steps, ARGV[1])
redis.call('HDEL', KEYS[1], 's' .. (steps - tonumber(ARGV[2])))
return 1
