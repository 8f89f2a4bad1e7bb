-- Deletes an operation's record and tells the waiters, and everybody who caches.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  PUBLISH or SPUBLISH
-- ARGV[2]  the message
-- ARGV[3]  the channel of those who cache: the name up to the key, which is what they are told
-- Returns how many records there were, 0 or 1.
redis.call('PUBLISH', ARGV[3], string.sub(KEYS[1], #ARGV[3] + 1))
local n = redis.call('DEL', KEYS[1])
redis.call(ARGV[1], KEYS[1], ARGV[2])
return n
