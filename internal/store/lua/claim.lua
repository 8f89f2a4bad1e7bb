-- Claims an operation on servers before Redis 7.0, where SET refuses NX together with GET, and for
-- caches, which need to know how long a record lives.
-- KEYS[1]  the operation
-- ARGV[1]  the running record
-- ARGV[2]  lease + retention, ms
-- Returns the record that is there and its PTTL, or false (nil) when the claim was made.
-- GET and SET are one step here, as scripts run alone.
local there = redis.call('GET', KEYS[1])
if there then
  return {there, redis.call('PTTL', KEYS[1])}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
