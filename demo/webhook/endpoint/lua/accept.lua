-- Makes an event durable, so that it may be acknowledged, or refuses it when too much is unsettled.
-- KEYS[1]  the queue, a stream
-- KEYS[2]  the retries, a sorted set
-- KEYS[3]  the dead letters, a sorted set
-- KEYS[4]  the event, a hash
-- KEYS[5]  the way from the provider's id to the event's key
-- ARGV[1]  the event's key
-- ARGV[2]  how many unsettled events there may be
-- ARGV[3]  how long it is all kept, ms
-- ARGV[4]  now, ms
-- ARGV[5]  the provider
-- ARGV[6]  the provider's id
-- ARGV[7]  the type
-- ARGV[8]  the body
-- Returns how often the event was delivered so far, 0 when it was refused.
local unsettled = redis.call('XLEN', KEYS[1]) + redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[3])
if unsettled >= tonumber(ARGV[2]) then
  return 0
end
if redis.call('HSETNX', KEYS[4], 'received', ARGV[4]) == 1 then
  redis.call('HSET', KEYS[4], 'provider', ARGV[5], 'id', ARGV[6], 'type', ARGV[7], 'body', ARGV[8])
  -- From the first delivery only: what the executor remembers must outlive this.
  redis.call('PEXPIRE', KEYS[4], ARGV[3])
end
redis.call('HSET', KEYS[4], 'last_received', ARGV[4])
redis.call('SET', KEYS[5], ARGV[1], 'PX', ARGV[3])
redis.call('XADD', KEYS[1], '*', 'key', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('HINCRBY', KEYS[4], 'deliveries', 1)
