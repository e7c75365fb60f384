-- Changes the entries that a gate lists for a channel.
--
-- KEYS  1 the gate's entries of the channel (hash)  2 the gate's channels (set)
-- ARGV  1 the channel's name  2 milliseconds after which the entries go, whatever happens
--       3 anew: what was there before goes; more: it stays  4.. pairs of an id and an entry, which is
--       empty for one that has gone
if ARGV[3] == 'anew' then redis.call('DEL', KEYS[1]) end
for index = 4, #ARGV, 2 do
  if ARGV[index + 1] == '' then
    redis.call('HDEL', KEYS[1], ARGV[index])
  else
    redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1])
  end
end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('EXISTS', KEYS[1])
