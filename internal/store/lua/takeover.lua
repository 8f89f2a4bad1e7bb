-- Puts a record in the place of the one the caller saw: a new owner after the lease is over, the
-- verdict "interrupted", or an operator's result.
-- KEYS[1]  the operation, also the channel
-- ARGV[1]  the first 18 bytes of the record seen, '' when there was none
-- ARGV[2]  the new record
-- ARGV[3]  how long it lives, ms
-- ARGV[4]  the retention, ms, of the record seen: its lease is over once PTTL is no more than
--          that; -1 to replace it whatever is left of its lease. A record without an expiry is given
--          lease + retention: a living owner renews that, and a dead one is taken over after it
-- ARGV[5]  PUBLISH or SPUBLISH
-- ARGV[6]  the largest record, in bytes, that is the message; of a larger one it is 'G'; -1 for no
--          message
-- ARGV[7]  the channel of the caches: the name up to the key, which is what they are told;
--          '' to tell them nothing
-- ARGV[8]  the lease, ms, of the record seen
-- Returns 1 when the new record is stored, now or by an earlier delivery of the same call, else
-- the record that is there ('' when none is).
-- A record starts with version (1 byte), kind (1 byte: R or D) and token (16 bytes).
local head = redis.call('GETRANGE', KEYS[1], 0, 17)
if head ~= '' and string.sub(head, 3) == string.sub(ARGV[2], 3, 18) then
  if head == string.sub(ARGV[2], 1, 18) then
    redis.call('PEXPIRE', KEYS[1], ARGV[3]) -- a write, so that WAIT on this connection means something
  end
  return 1
end
-- PTTL rounds down, so that a lease is found over up to 1 ms early: owners stop earlier than that.
local retention, live = tonumber(ARGV[4]), false
if retention >= 0 then
  local left = redis.call('PTTL', KEYS[1])
  live = left > retention
  if left == -1 and head == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[8]) + retention)
    live = true
  end
end
if head ~= ARGV[1] or live then
  return redis.call('GET', KEYS[1]) or ''
end
if ARGV[7] ~= '' then
  redis.call('PUBLISH', ARGV[7], string.sub(KEYS[1], #ARGV[7] + 1))
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local limit = tonumber(ARGV[6])
if limit >= 0 then
  if #ARGV[2] <= limit then
    redis.call(ARGV[5], KEYS[1], ARGV[2])
  else
    redis.call(ARGV[5], KEYS[1], 'G')
  end
end
return 1
