-- Changes one gate's share of the users on a channel, and publishes the joins and leaves that follow
-- for all gates together. Stands behind publish.lua, which is the function `publish` here.
--
-- A user's record is `since listed gates`, the user as JSON, and the info as JSON, with line feeds
-- between; the user '' is the channel itself, on which a gate has clients. Repeating a call changes
-- nothing.
--
-- KEYS  1 state and 2 history of the channel of joins and leaves  3 users (hash)
--       4 users beyond the bound (set)  5 a pause between counts  6 the gate's channels (set)
--       7 clients that are held (hash: gates and their numbers)
-- ARGV  1..10 as of publish.lua, the body empty
--       11 enter, exit, reap (all of the gate's users go), count, or connections (15 = their number)
--       12 gate
--       13 that channel's name  14 users that are listed
--       15 user  16 the same as JSON  17 info as JSON  18 why it leaves  19 microseconds since 1970
-- Returns pairs of a sign and a user: + joined, - left, o occupied, v vacated, # a count is due.
local users, beyond, pause, own, held = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local act, gate, channel, most = ARGV[11], ARGV[12], ARGV[13], tonumber(ARGV[14])
local done = {}

local function say(body)
  local words = {}
  for index = 1, 10 do words[index] = ARGV[index] end
  words[6] = body
  return publish({KEYS[1], KEYS[2]}, words)
end

local function note(sign, user)
  done[#done + 1] = sign
  done[#done + 1] = user
end

local function read(user)
  local record = redis.call('HGET', users, user)
  if not record then return nil end
  local since, listed, gates, json, info = string.match(record, '^(%d+) (%d) ([^\n]*)\n([^\n]*)\n(.*)$')
  return {since = since, listed = listed == '1', gates = gates, json = json, info = info}
end

local function write(user, it)
  local head = it.since .. ' ' .. (it.listed and '1' or '0') .. ' ' .. it.gates
  redis.call('HSET', users, user, head .. '\n' .. it.json .. '\n' .. it.info)
end

local function count()
  local all = redis.call('HLEN', users)
  if redis.call('HEXISTS', users, '') == 1 then all = all - 1 end
  return all
end

local function say_count()
  local all = count()
  if all <= most then return end
  if redis.call('SET', pause, '1', 'NX', 'PX', 1000) then
    say('{"type":"count","count":' .. string.format('%.0f', all) .. '}')
  else
    note('#', '')
  end
end

local function join(user, it)
  it.listed = true
  write(user, it)
  say('{"type":"join","user":' .. it.json .. ',"info":' .. it.info .. '}')
  note('+', user)
end

local function enter(user, json, info)
  -- Also for a user whom another gate has: what is not in this set is not taken off a dead gate.
  redis.call('SADD', own, channel)
  local it = read(user)
  if it then
    if string.find(' ' .. it.gates .. ' ', ' ' .. gate .. ' ', 1, true) then return end
    it.gates = it.gates .. ' ' .. gate
    write(user, it)
    return
  end
  it = {since = ARGV[19], listed = false, gates = gate, json = json, info = info}
  write(user, it)
  if user == '' then
    note('o', '')
  elseif count() <= most then
    join(user, it)
  else
    redis.call('SADD', beyond, user)
    say_count()
  end
end

local function exit(user, why)
  local it = read(user)
  if not it then return end
  local rest = {}
  for one in string.gmatch(it.gates, '%S+') do
    if one ~= gate then rest[#rest + 1] = one end
  end
  if #rest > 0 then
    it.gates = table.concat(rest, ' ')
    write(user, it)
    return
  end
  redis.call('HDEL', users, user)
  redis.call('SREM', beyond, user)
  if user == '' then
    note('v', '')
  elseif it.listed then
    say('{"type":"leave","user":' .. it.json .. ',"why":"' .. why .. '"}')
    note('-', user)
  end
end

-- Those beyond the bound may have room now.
local function admit()
  if redis.call('SCARD', beyond) == 0 then return end
  if count() > most then return say_count() end
  for _, user in ipairs(redis.call('SMEMBERS', beyond)) do
    local it = read(user)
    if it then join(user, it) end
  end
  redis.call('DEL', beyond)
end

if act == 'enter' then
  enter(ARGV[15], ARGV[16], ARGV[17])
elseif act == 'exit' then
  exit(ARGV[15], ARGV[18])
  if ARGV[15] == '' then
    redis.call('HDEL', held, gate)
    redis.call('SREM', own, channel)
  end
  admit()
elseif act == 'reap' then
  for _, user in ipairs(redis.call('HKEYS', users)) do
    if user ~= '' then exit(user, 'gone') end
  end
  exit('', 'gone')
  redis.call('HDEL', held, gate)
  redis.call('SREM', own, channel)
  admit()
elseif act == 'connections' then
  if ARGV[15] == '0' then
    redis.call('HDEL', held, gate)
  else
    redis.call('SADD', own, channel)
    redis.call('HSET', held, gate, ARGV[15])
  end
else
  say_count()
end
return done
