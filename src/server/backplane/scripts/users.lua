-- Lists the users on a channel, with the position of their joins and leaves. Stands behind read.lua,
-- which is the function `read` here.
--
-- KEYS  1 state and 2 history of the channel of joins and leaves  3 users (hash)
--       4 clients that are held (hash: gates and their numbers)
-- Returns what read.lua does, without messages; the records of the users; their number; and the gates
-- with their numbers of clients.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
local place = read({KEYS[1], KEYS[2]}, {epoch or '0', '9007199254740991'})
local listed, all = {}, 0
local records = redis.call('HGETALL', KEYS[3])
for index = 1, #records, 2 do
  if records[index] ~= '' then
    all = all + 1
    if string.find(records[index + 1], '^%d+ 1 ') then
      listed[#listed + 1] = records[index]
      listed[#listed + 1] = records[index + 1]
    end
  end
end
return {place, listed, all, redis.call('HGETALL', KEYS[4])}
