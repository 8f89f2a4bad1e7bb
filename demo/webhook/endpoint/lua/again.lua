-- Puts into the queue again what was taken out and not settled, because its process died or had no
-- luck, and what is due for a retry.
-- KEYS[1]  the queue
-- KEYS[2]  the retries
-- ARGV[1]  the consumer group
-- ARGV[2]  the consumer
-- ARGV[3]  how long ago it must have been taken, ms
-- ARGV[4]  now, ms
-- ARGV[5]  how many of each at once
-- ARGV[6]  how long it is all kept, ms
-- Returns how many there were.
local stale = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0', 'COUNT', ARGV[5])[2]
for _, entry in ipairs(stale) do
  if entry[2] then -- before Redis 7.0, a deleted entry may be among them
    redis.call('XADD', KEYS[1], '*', unpack(entry[2]))
  end
  redis.call('XACK', KEYS[1], ARGV[1], entry[1])
  redis.call('XDEL', KEYS[1], entry[1])
end
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[4], 'LIMIT', 0, ARGV[5])
for _, key in ipairs(due) do
  redis.call('XADD', KEYS[1], '*', 'key', key)
  redis.call('ZREM', KEYS[2], key)
end
if #stale + #due > 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
return #stale + #due
