-- Notes a failure that is worth another try, and when that is due.
-- KEYS[1]  the event
-- KEYS[2]  the queue
-- KEYS[3]  the retries
-- ARGV[1]  the event's key
-- ARGV[2]  the consumer group
-- ARGV[3]  the entry
-- ARGV[4]  now, ms
-- ARGV[5]  how many executions there were
-- ARGV[6]  why
-- ARGV[7]  when the next one is due, ms
-- ARGV[8]  how long it is all kept, ms
-- Returns 1.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'attempts', ARGV[5], 'reason', ARGV[6], 'last_failed', ARGV[4])
  redis.call('HSETNX', KEYS[1], 'first_failed', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
  redis.call('ZADD', KEYS[3], ARGV[7], ARGV[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[8])
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
return 1
