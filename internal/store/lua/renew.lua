-- Extends the lease of a running record.
-- KEYS[1]  the operation
-- ARGV[1]  the owner's token
-- ARGV[2]  lease + retention, ms
-- Returns 1 when the record is still the owner's, 0 when it is not.
-- A record starts with version (1 byte), kind (1 byte: R or D) and token (16 bytes).
-- Kind R: an outcome must not have its life changed by a renewal that arrives late.
if string.sub(redis.call('GETRANGE', KEYS[1], 0, 17), 2) == 'R' .. ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
