-- Deletes an operation's record and tells the waiters.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  PUBLISH or SPUBLISH
-- ARGV[2]  the message
-- Returns how many records there were, 0 or 1.
local n = redis.call('DEL', KEYS[1])
redis.call(ARGV[1], KEYS[1], ARGV[2])
return n
