-- Renews a gate's lease and finds the gates whose leases have run out.
--
-- KEYS  1 leases (sorted set: gates by the millisecond in which theirs run out)
-- ARGV  1 gate  2 milliseconds of its lease; 0 = it only looks
-- Returns 1 if its lease had not run out, and the others.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ = redis.call('ZSCORE', KEYS[1], ARGV[1])
local alive = until_ and tonumber(until_) > now
if not until_ or alive then redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1]) end
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', now), 'LIMIT', 0, 16)
return {alive and 1 or 0, dead}
