-- Notes on the server of a cluster that a partition of the channels has moved to where it comes
-- from. Positions belong to a lineage of servers: to the one that gave them, or, where the caller has
-- seen that nothing got lost on the way, to the same lineage as before. It is enough to have seen that
-- the old server is the same process with the same data after it gave the partition away, and this
-- one since before it got it.
--
-- KEYS  1 the note (hash: server = the server that it is about, lineage, time = microseconds since 1970
--       that all stamps to come are above, term = the server's config epoch)
-- ARGV  1 replication id of the old server; empty = something may have got lost  2 that of this one
--       3 the old one's time  4 the config epoch of this one
-- Returns 1, or 0 where this server is not who it should be.
local from, here, term = ARGV[1], ARGV[2], ARGV[4]
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if server ~= here then return 0 end
local note = redis.call('HMGET', KEYS[1], 'server', 'lineage', 'time', 'term')
-- Another gate has seen the same.
if note[1] == here and (from ~= '' or note[4] == term) then return 1 end
local own = here .. '.' .. term
if from ~= '' then own = note[1] == from and note[2] or from end
local time = math.max(tonumber(ARGV[3]), tonumber(note[3] or 0))
redis.call('HSET', KEYS[1], 'server', here, 'lineage', own, 'time', string.format('%.0f', time),
  'term', term)
return 1
