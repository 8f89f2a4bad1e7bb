-- Reads a record together with its TTL. It is a script so that it goes to the master, also through
-- clients that send plain reads to replicas.
-- KEYS[1]  the operation
-- Returns the record, false (nil) when there is none, and its PTTL.
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
