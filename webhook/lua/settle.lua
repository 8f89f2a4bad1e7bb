-- Moves an event from running to another state, frees its object and, if the object moved, wakes its parked events.
-- KEYS[1]  event                    KEYS[6]  objects in work, hash           KEYS[11] the new state's zset
-- KEYS[2]  payload                  KEYS[7]  waiting for their object, zset  KEYS[12] positions of the object
-- KEYS[3]  queue                    KEYS[8]  tokens, hash                    KEYS[13] object index
-- KEYS[4]  redrive queue            KEYS[9]  parked by object, zset by name  KEYS[14] from the provider's id to the key
-- KEYS[5]  leases                   KEYS[10] running, zset                   KEYS[15..17] queued, retrying, parked, zsets
-- ARGV[1]  reference                ARGV[8]  retention of the event, ms
-- ARGV[2]  object tag               ARGV[9]  retention of the payload, ms
-- ARGV[3]  key                      ARGV[10] retention of positions, ms
-- ARGV[4]  token                    ARGV[11] order, empty if the object did not move
-- ARGV[5]  new state                ARGV[12] new position
-- ARGV[6]  step                     ARGV[13] due after, us
-- ARGV[7]  how many steps are kept  ARGV[14] lifetime of the lane's keys, ms
-- then fields and values of the event
-- Returns 1, 0 if the token is not the event's.
local reference, tag, key = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[8], reference) ~= ARGV[4] then
  return 0
end
redis.call('ZREM', KEYS[5], reference)
redis.call('HDEL', KEYS[8], reference)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local nowText = string.format('%.0f', now)

if tag ~= '-' then
  redis.call('HDEL', KEYS[6], tag)
  local waiting = redis.call('ZRANGEBYLEX', KEYS[7], '[' .. tag .. ':', '(' .. tag .. ';', 'LIMIT', 0, 1)[1]
  if waiting then
    redis.call('ZREM', KEYS[7], waiting)
    local class, due, other = string.match(waiting, '^[^:]*:(.):(%d+):(.*)$')
    redis.call('ZADD', class == 'q' and KEYS[3] or KEYS[4], due, tag .. ':' .. other)
  end
end

redis.call('ZREM', KEYS[10], key)
redis.call('ZREM', KEYS[9], reference)
local received = redis.call('HGET', KEYS[1], 'received')
if not received then -- past its retention; it may never have begun
  for i = 15, 17 do
    redis.call('ZREM', KEYS[i], key)
  end
  return 1
end
local steps = redis.call('HINCRBY', KEYS[1], 'steps', 1)
redis.call('HSET', KEYS[1], 'state', ARGV[5], 's' .. steps, ARGV[6], unpack(ARGV, 15))
redis.call('HDEL', KEYS[1], 's' .. (steps - tonumber(ARGV[7])))
redis.call('PEXPIRE', KEYS[1], ARGV[8])
redis.call('PEXPIRE', KEYS[2], ARGV[9])
redis.call('PEXPIRE', KEYS[13], ARGV[8])
redis.call('PEXPIRE', KEYS[14], ARGV[8])
redis.call('ZADD', KEYS[11], received, key)
redis.call('ZREMRANGEBYSCORE', KEYS[11], '-inf', string.format('%.0f', now - 2000 * ARGV[8]))

if ARGV[5] == 'retrying' or ARGV[5] == 'parked' then
  local due = string.format('%.0f', now + ARGV[13])
  redis.call('HSET', KEYS[1], 'due', due)
  redis.call('HDEL', KEYS[1], 'settled')
  redis.call('ZADD', KEYS[3], due, reference)
  if ARGV[5] == 'parked' then
    redis.call('ZADD', KEYS[9], 0, reference)
  end
else
  redis.call('HSET', KEYS[1], 'settled', nowText)
  if ARGV[5] == 'done' then
    redis.call('HSET', KEYS[1], 'applied', 1)
  end
end

if ARGV[11] ~= '' then
  redis.call('HSET', KEYS[12], ARGV[11], ARGV[12])
  redis.call('PEXPIRE', KEYS[12], ARGV[10])
  for _, parked in ipairs(redis.call('ZRANGEBYLEX', KEYS[9], '[' .. tag .. ':', '(' .. tag .. ';')) do
    if redis.call('ZSCORE', KEYS[3], parked) then
      redis.call('ZADD', KEYS[3], nowText, parked)
    end
  end
end
for _, i in ipairs({ 3, 4, 9, 11 }) do
  redis.call('PEXPIRE', KEYS[i], ARGV[14])
end
return 1
