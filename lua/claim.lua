-- Claims an operation on servers before Redis 7.0, where SET refuses NX together with GET.
-- KEYS[1]  the operation
-- ARGV[1]  the running record
-- ARGV[2]  lease + retention, ms
-- Returns the record that is there, or false (nil) when the claim was made.
local there = redis.call('GET', KEYS[1])
if not there then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return there
