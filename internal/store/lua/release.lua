-- Gives up an operation without an outcome and tells the waiters.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  the owner's token
-- ARGV[2]  PUBLISH or SPUBLISH
-- ARGV[3]  the message
-- ARGV[4]  the record that stays, without an owner, '' for none
-- ARGV[5]  how long that lives, ms
-- Returns 1 when the record was the owner's, 0 when it was not.
-- A record starts with version (1 byte), kind (1 byte: R or D) and token (16 bytes).
-- Kind R: a release that arrives late must not delete an outcome.
if string.sub(redis.call('GETRANGE', KEYS[1], 0, 17), 2) ~= 'R' .. ARGV[1] then
  return 0
end
if ARGV[4] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
end
redis.call(ARGV[2], KEYS[1], ARGV[3])
return 1
