-- Notes what an event has changed, and takes its entry off the queue.
-- KEYS[1]  the event
-- KEYS[2]  the queue
-- KEYS[3]  the retries
-- ARGV[1]  the event's key
-- ARGV[2]  the consumer group
-- ARGV[3]  the entry
-- ARGV[4]  now, ms
-- ARGV[5]  how many executions it took
-- ARGV[6]  what changed
-- Returns 1.
if redis.call('EXISTS', KEYS[1]) == 1 then -- else it would come back without an expiry
  if redis.call('HSETNX', KEYS[1], 'changed', ARGV[6]) == 1 then
    redis.call('HSET', KEYS[1], 'processed', ARGV[4], 'attempts', ARGV[5])
  end
end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
return 1
