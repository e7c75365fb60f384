-- Forgets a channel: its messages go, and a new life begins. The newest stamp stays known, so
-- that stamps go on growing and older positions are told to be lost.
--
-- KEYS  1 state (hash)  2 history (stream)
-- ARGV  1 pub/sub channel  2 PUBLISH or SPUBLISH  3 epoch of the new life
-- Returns the newest stamp, or nothing where there is no such channel.
local old = redis.call('HMGET', KEYS[1], 'seq', 'stamp')
if not old[1] or old[1] == '0' then return false end
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
if ARGV[2] == 'SPUBLISH' then
  local lineage = redis.pcall('HMGET', string.match(KEYS[1], '^.-{%d+}:') .. 'lineage', 'server', 'lineage')
  if lineage.err then return redis.error_reply('TRYAGAIN the slot is on its way to another server') end
  if lineage[1] == server then server = lineage[2] end
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'seq', 0, 'floor', old[2], 'server', server,
  'bytes', 0)
redis.call('PEXPIRE', KEYS[1], 691200000)
redis.call(ARGV[2], ARGV[1], ARGV[3] .. ' 0 ' .. old[2] .. ' 0 t \n')
return old[2]
