-- Deletes an operation's record and tells the waiters, and the caches.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  PUBLISH or SPUBLISH
-- ARGV[2]  the message
-- ARGV[3]  the channel of the caches: the name up to the key, which is what they are told
-- ARGV[4]  the first 18 bytes of the record seen, '' when there was none: no other is deleted
-- ARGV[5]  1 to delete whatever is there, for what is no string
-- Returns the first 18 bytes of the record that was there.
-- First, and whatever is found: a cache that drops a key for nothing loses one read.
redis.call('PUBLISH', ARGV[3], string.sub(KEYS[1], #ARGV[3] + 1))
local head = ARGV[4]
if ARGV[5] ~= '1' then
  head = redis.call('GETRANGE', KEYS[1], 0, 17)
end
if head == ARGV[4] then
  redis.call('DEL', KEYS[1])
  redis.call(ARGV[1], KEYS[1], ARGV[2])
end
return head
