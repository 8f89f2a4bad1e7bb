-- Puts a dead letter into the queue again, with all its attempts.
-- KEYS[1]  the event
-- KEYS[2]  the queue
-- KEYS[3]  the dead letters
-- ARGV[1]  the event's key
-- ARGV[2]  how long it is all kept, ms
-- Returns 1, or 0 when there is no such dead letter: of two who ask at once, one gets that.
if redis.call('ZREM', KEYS[3], ARGV[1]) == 0 or redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'replays', 1)
redis.call('HDEL', KEYS[1], 'attempts', 'reason', 'first_failed', 'last_failed')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'key', ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
