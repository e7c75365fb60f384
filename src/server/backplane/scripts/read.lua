-- Reads a channel's state and the messages after a position. Writes nothing: asking for a channel
-- that does not exist leaves no trace.
--
-- KEYS  1 state (hash)  2 history (stream)
-- ARGV  1 epoch and 2 seq of the position; of another epoch all messages are wanted
-- Returns server (in a cluster: the lineage of servers that the channel is of, see continue.lua),
-- microseconds since 1970, and where the channel exists: epoch, seq, stamp, floor, and the messages.
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lineage = redis.pcall('HMGET', string.match(KEYS[1], '^.-{%d+}:') .. 'lineage', 'server', 'lineage', 'time')
if lineage.err then return redis.error_reply('TRYAGAIN the slot is on its way to another server') end
if lineage[1] == server then server, now = lineage[2], math.max(now, tonumber(lineage[3])) end
now = string.format('%.0f', now)
local state = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'stamp', 'floor')
if not state[1] then return {server, now} end
local from = state[1] == ARGV[1] and '(' .. ARGV[2] .. '-0' or '-'
local messages = {}
if state[1] ~= ARGV[1] or tonumber(ARGV[2]) < tonumber(state[2]) then
  for index, entry in ipairs(redis.call('XRANGE', KEYS[2], from, '+')) do
    messages[index] = entry[2][2]
  end
end
return {server, now, state[1], state[2], state[3], state[4], messages}
