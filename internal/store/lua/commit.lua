-- Stores the outcome of an execution and tells the waiters.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  the finished record, with the owner's token
-- ARGV[2]  how long it lives, ms
-- ARGV[3]  PUBLISH or SPUBLISH
-- ARGV[4]  the largest record, in bytes, that is the message; of a larger one it is 'G'
-- Returns 1 when the outcome is stored, now or by an earlier delivery of the same call,
-- 0 when another owner's record is there. No record at all is stored over: it has expired, or was
-- forgotten, and no other owner has claimed since.
-- A record starts with version (1 byte), kind (1 byte: R or D) and token (16 bytes).
-- The head decides. A large record is not read for that.
local head = redis.call('GETRANGE', KEYS[1], 0, 17)
if head ~= '' then
  if string.sub(head, 3) ~= string.sub(ARGV[1], 3, 18) then return 0 end
  if string.sub(head, 2, 2) == 'D' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- a write, so that WAIT on this connection means something
    return 1
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if #ARGV[1] <= tonumber(ARGV[4]) then
  redis.call(ARGV[3], KEYS[1], ARGV[1])
else
  redis.call(ARGV[3], KEYS[1], 'G')
end
return 1
