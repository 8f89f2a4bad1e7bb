-- Gives up an operation without an outcome and tells the waiters.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  the owner's token
-- ARGV[2]  0 to delete the record, else the ms it is kept for: with the retention here, the
--          lease is over at once and the next owner sees the attempt number
-- ARGV[3]  PUBLISH or SPUBLISH
-- ARGV[4]  the message
-- Returns 1 when the record was the owner's, 0 when it was not.
-- A record starts with version (1 byte), kind (1 byte: R or D) and token (16 bytes).
if string.sub(redis.call('GETRANGE', KEYS[1], 0, 17), 2) ~= 'R' .. ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
redis.call(ARGV[3], KEYS[1], ARGV[4])
return 1
