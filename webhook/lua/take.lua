-- Gives due events of one lane to a worker. Events whose lease ran out come first.
-- KEYS[1]  queue, zset by due time         KEYS[4]  objects in work, hash from object tag to reference
-- KEYS[2]  redrive queue, zset by due time KEYS[5]  events that wait for their object, zset by name
-- KEYS[3]  leases, zset by their end       KEYS[6]  tokens, hash from reference to token
-- ARGV[1]  how many at most                ARGV[3]  token
-- ARGV[2]  lease, us                       ARGV[4]  lifetime of the lane's keys, ms
-- Returns the references taken.
local limit = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local nowText = string.format('%.0f', now)
local leaseEnd = string.format('%.0f', now + ARGV[2])
local taken = {}
local moved = false

for _, reference in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', nowText, 'LIMIT', 0, limit)) do
  moved = true
  redis.call('ZREM', KEYS[3], reference)
  redis.call('HDEL', KEYS[6], reference)
  redis.call('HDEL', KEYS[4], string.match(reference, '^[^:]*'))
  redis.call('ZADD', KEYS[1], 1, reference) -- before all others, of its object as well
end

-- An event whose object is in work moves to the waiting ones, so that it is looked at once and not by each Take.
local function pick(queue, class)
  for _ = 1, 10 do
    if #taken >= limit then
      return
    end
    local due = redis.call('ZRANGEBYSCORE', queue, '-inf', nowText, 'WITHSCORES', 'LIMIT', 0, limit - #taken)
    if #due == 0 then
      return
    end
    moved = true
    for i = 1, #due, 2 do
      local reference = due[i]
      local tag, key = string.match(reference, '^([^:]*):(.*)$')
      redis.call('ZREM', queue, reference)
      if tag ~= '-' and redis.call('HSETNX', KEYS[4], tag, reference) == 0 then
        redis.call('ZADD', KEYS[5], 0, string.format('%s:%s:%016.0f:%s', tag, class, tonumber(due[i + 1]), key))
      else
        redis.call('ZADD', KEYS[3], leaseEnd, reference)
        redis.call('HSET', KEYS[6], reference, ARGV[3])
        taken[#taken + 1] = reference
      end
    end
  end
end
pick(KEYS[1], 'q')
pick(KEYS[2], 'r')
if moved then
  for i = 1, 6 do
    redis.call('PEXPIRE', KEYS[i], ARGV[4])
  end
end
return taken
