-- Renews the leases of one lane's tickets.
-- KEYS[1]  leases, zset by their end   KEYS[2]  tokens, hash from reference to token
-- ARGV[1]  lease, us                       then a reference and a token for each ticket
-- Returns for each ticket 1, or 0 if it is lost.
local time = redis.call('TIME')
local leaseEnd = string.format('%.0f', time[1] * 1000000 + time[2] + ARGV[1])
local kept = {}
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZADD', KEYS[1], leaseEnd, ARGV[i])
    kept[#kept + 1] = 1
  else
    kept[#kept + 1] = 0
  end
end
return kept
