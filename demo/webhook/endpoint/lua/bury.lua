-- Makes an event a dead letter, and takes its entry off the queue.
-- KEYS[1]  the event
-- KEYS[2]  the queue
-- KEYS[3]  the retries
-- KEYS[4]  the dead letters
-- ARGV[1]  the event's key
-- ARGV[2]  the consumer group
-- ARGV[3]  the entry
-- ARGV[4]  now, ms
-- ARGV[5]  how many executions there were
-- ARGV[6]  why
-- ARGV[7]  how often it had been replayed when it failed
-- ARGV[8]  how long it is all kept, ms
-- Returns 1.
local replays = redis.call('HGET', KEYS[1], 'replays') or '0'
-- Somebody slow may speak of an execution before the last replay.
if redis.call('EXISTS', KEYS[1]) == 1 and replays == ARGV[7] then
  if redis.call('ZADD', KEYS[4], 'NX', ARGV[4], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], 'attempts', ARGV[5], 'reason', ARGV[6], 'last_failed', ARGV[4])
    redis.call('HSETNX', KEYS[1], 'first_failed', ARGV[4])
    redis.call('PEXPIRE', KEYS[1], ARGV[8])
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', ARGV[4] - ARGV[8])
  redis.call('PEXPIRE', KEYS[4], ARGV[8])
  redis.call('ZREM', KEYS[3], ARGV[1])
end
redis.call('XACK', KEYS[2], ARGV[2], ARGV[3])
redis.call('XDEL', KEYS[2], ARGV[3])
return 1
