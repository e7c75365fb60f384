-- Publishes one message on a channel: its position, its stamp, its place in the history and its
-- push to every gate, all or nothing.
--
-- KEYS  1 state (hash)  2 history (stream)  3 idempotency key (string; only where there is one)
-- ARGV  1 pub/sub channel  2 PUBLISH or SPUBLISH  3 epoch for a new life, 916132832..56800235583
--       4 kind: j (JSON), t (text), b (bytes)  5 content type  6 body
--       7 messages kept  8 bytes kept  9 milliseconds they are kept (0 = for ever)
--       10 the stamp's tick in microseconds  11 milliseconds the idempotency key is known
-- Returns epoch, seq, stamp.
local state, history, once = KEYS[1], KEYS[2], KEYS[3]
local print
if once then
  print = string.sub(redis.sha1hex(ARGV[4] .. ARGV[5] .. '\n' .. ARGV[6]), 1, 16)
  local done = redis.call('GET', once)
  if done then
    local by, epoch, seq, stamp = string.match(done, '(%x+) (%d+) (%d+) (%d+)')
    if by == print then return {epoch, seq, stamp} end
    return redis.error_reply('CONFLICT the key was used with another message')
  end
end

-- A server that was restarted or promoted may have lost messages that gates have seen: its
-- replication id is another one then, and a new life begins.
local server = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local above = 0
if ARGV[2] == 'SPUBLISH' then
  -- What has moved here whole from another server of the cluster goes on (continue.lua).
  local lineage = redis.pcall('HMGET', string.match(state, '^.-{%d+}:') .. 'lineage', 'server', 'lineage', 'time')
  if lineage.err then return redis.error_reply('TRYAGAIN the slot is on its way to another server') end
  if lineage[1] == server then server, above = lineage[2], tonumber(lineage[3]) end
end
local old = redis.call('HMGET', state, 'epoch', 'seq', 'stamp', 'server', 'floor')
local epoch, seq = old[1], tonumber(old[2] or 0)
local last, floor = tonumber(old[3] or 0), old[5] or '0'
if not epoch or old[4] ~= server then
  epoch, seq, floor = ARGV[3], 0, string.format('%.0f', last)
  redis.call('DEL', history)
end
-- The clock of the server where it comes from may have been ahead.
last = math.max(last, above)

-- Strictly increasing, in whole ticks, rounded up.
local time, tick = redis.call('TIME'), tonumber(ARGV[10])
local now = time[1] * 1000000 + time[2]
local stamp = math.ceil(now / tick) * tick
if stamp < last + tick then stamp = math.ceil((last + tick) / tick) * tick end
seq = seq + 1
local shown = string.format('%.0f %.0f %.0f', seq, stamp, now)
local message = epoch .. ' ' .. shown .. ' ' .. ARGV[4] .. ' ' .. ARGV[5] .. '\n' .. ARGV[6]
stamp = string.format('%.0f', stamp)

-- The oldest go until this one fits.
local kept = redis.call('XLEN', history)
local bytes = kept > 0 and tonumber(redis.call('HGET', state, 'bytes') or 0) or 0
while kept > 0 and (kept >= tonumber(ARGV[7]) or bytes + #message > tonumber(ARGV[8])) do
  bytes = bytes - #redis.call('XRANGE', history, '-', '+', 'COUNT', 1)[1][2][2]
  kept = kept - 1
  redis.call('XTRIM', history, 'MAXLEN', '=', kept)
end
redis.call('XADD', history, string.format('%.0f-0', seq), 'm', message)
redis.call('HSET', state, 'epoch', epoch, 'seq', seq, 'stamp', stamp, 'server', server,
  'floor', floor, 'bytes', string.format('%.0f', bytes + #message))
if ARGV[9] == '0' then
  redis.call('PERSIST', history)
  redis.call('PERSIST', state)
else
  redis.call('PEXPIRE', history, ARGV[9])
  -- What is known of a channel outlives its messages by a week and a day.
  redis.call('PEXPIRE', state, string.format('%.0f', ARGV[9] + 691200000))
end
if once then
  local done = print .. ' ' .. epoch .. ' ' .. string.format('%.0f', seq) .. ' ' .. stamp
  redis.call('SET', once, done, 'PX', ARGV[11])
end
redis.call(ARGV[2], ARGV[1], message)
return {epoch, string.format('%.0f', seq), stamp}
