-- Reads a record together with its TTL. It is a script so that it goes to the master, also through
-- clients that send plain reads to replicas.
-- KEYS[1]  the operation
-- Returns the record, false (nil) when there is none, and its PTTL. Of what does not begin as a
-- record of this version does, it returns the first bytes: enough to refuse it.
local head = redis.call('GETRANGE', KEYS[1], 0, 1)
if head ~= '' and head ~= '\1R' and head ~= '\1D' then
  return {redis.call('GETRANGE', KEYS[1], 0, 63), redis.call('PTTL', KEYS[1])}
end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
