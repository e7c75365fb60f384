-- Takes what a dead gate has listed for a channel. One caller gets it.
--
-- KEYS  1 the gate's entries of the channel (hash)  2 the gate's channels (set)
-- ARGV  1 the channel's name
-- Returns the entries.
local entries = redis.call('HVALS', KEYS[1])
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[1])
return entries
