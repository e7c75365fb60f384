// pollgate's client for browsers: https://github.com/pollgate/pollgate, Apache-2.0.
//
//   const client = pollgate('/comet', {token, transports});
//   client.on('news', (data, meta) => ...);
//   client.on('news', f, {from: 'oldest'});
//   client.on('reset', (channel) => ...);
//   client.presence('room', (users) => ...);
//   client.state; client.transport; client.close();
//
// One connection carries all channels. Tabs with equal tokens share it: one of them leads, and
// passes on what it receives. A channel's place is the id of the last message that was received,
// `epoch-seq`, and a listener skips what it has had; so an answer may come twice, from a reconnect
// or from another tab, and a gap between places is filled by a request.
//
// The gate serves this file without its comments and indentation. A comment has a line of its own.
function pollgate(base = '/comet', options = {}) {
  const beat = 1000 * (options.heartbeat || 20);
  const order = options.transports || ['ws', 'sse', 'poll'];
  const key = 'pollgate:' + base;
  const me = Math.random();
  const client = {state: 'connecting', transport: null};
  // channel -> Map(listener -> {at: its place, held: what waits until it has caught up, gone})
  const listeners = new Map();
  const places = new Map();
  const resets = new Set();
  // following tab -> its channels
  const others = new Map();
  // The channels of the connection.
  let channels = [];
  const life = new AbortController();
  let token = options.token, asked, closed, lead, tabs, stop, soon, ready;
  let attempt = 0, unanswered = 0, heard = 0;
  let end = () => {}, wake = end, idle = end;
  const started = new Promise((done) => { ready = done; });

  const now = Date.now;
  const random = Math.random;
  const store = (name, value) => {
    try {
      if (value === undefined) return sessionStorage[key + name];
      sessionStorage[key + name] = value;
    } catch {}
  };

  // The gate's tag for a channel in a cursor: the CRC-32 of its name.
  const tag = (channel) => {
    let crc = -1;
    for (const byte of new TextEncoder().encode(channel)) {
      crc ^= byte;
      for (let bit = 8; bit--;) crc = crc >>> 1 ^ 0xedb88320 & -(crc & 1);
    }
    return (~crc >>> 0).toString(36);
  };
  const cursor = (names) =>
    names.filter((name) => places.get(name)).map((name) => tag(name) + '.' + places.get(name)).join('~');
  const placeIn = (text, channel) => {
    const mine = tag(channel);
    for (const entry of (text || '').split('~')) {
      const [place, of] = entry.split('.').reverse();
      if (!of || of === mine) return place;
    }
  };
  // True if a client at `place` has had the message `id`.
  const has = (place, id) => {
    const [epoch, seq] = (place || '').split('-'), [other, least] = id.split('-');
    return epoch === other && +seq >= least;
  };

  const change = (state, transport = null) => {
    if (client.state === 'closed' || client.state === state && client.transport === transport) return;
    Object.assign(client, {state, transport});
    say();
    if (options.onstate) call(options.onstate, state, transport);
  };
  // An error of the page's is the page's: it does not stop the client.
  const call = (f, ...args) => {
    try { f(...args); } catch (error) { setTimeout(() => { throw error; }); }
  };
  const sleep = (time, firm) => new Promise((done) => {
    setTimeout(done, time);
    if (!firm) wake = done;
  });
  // Full jitter up to 20 s. What the gate asks for is a minimum that nothing cuts short.
  const pause = (tries, after) => after ? sleep(after * (1 + random() / 5), true)
    : sleep(500 + random() * (Math.min(20000, 1000 * 2 ** tries) - 500));

  const lost = (channel) => resets.forEach((f) => call(f, channel));
  const give = (f, own, message, reset) => {
    const {channel, id, stamp, base64, data} = message;
    if (closed || own.gone || has(own.at, id)) return;
    own.at = id;
    call(f, base64 == null ? data : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)),
      {channel, id, stamp, cursor: tag(channel) + '.' + id, reset: !!reset});
  };
  const deliver = ({cursor, messages, reset}) => {
    for (const channel of lead ? channels : [...listeners.keys()]) {
      const place = placeIn(cursor, channel), before = places.get(channel), of = listeners.get(channel);
      const mine = messages.filter((message) => message.channel === channel);
      // A new place without a message or a reset is a gap that is not yet explained.
      if (!place || before && !reset && !mine.length) continue;
      places.set(channel, place);
      if (!of) continue;
      store(':' + channel, place);
      // Several channels share one word of a reset: it is about those that have a gap.
      const [epoch, seq] = (mine[0] || {id: place}).id.split('-');
      const gap = reset && before && !has(before, epoch + '-' + (seq - !!mine[0]));
      if (gap) lost(channel);
      for (const message of mine) {
        for (const [f, own] of [...of]) own.held ? own.held.push(message) : give(f, own, message, gap);
      }
    }
  };

  const url = (names, query) =>
    base + '/' + names.map(encodeURIComponent).join(',') + '?' + new URLSearchParams(query);
  const get = async (signal, names, query, accept) => {
    const headers = {Accept: accept};
    if (token) headers.Authorization = 'Bearer ' + token;
    const answer = await fetch(url(names, query), {headers, signal, credentials: options.credentials});
    if (answer.ok) return answer;
    throw {status: answer.status, after: 1000 * answer.headers.get('Retry-After')};
  };
  const poll = async (signal, names, cursor, timeout, more) =>
    (await get(signal, names, {cursor, timeout, ...more}, 'application/json')).json();
  // Asks for a token: once, until something has worked again.
  const ask = async () => {
    const it = options.token, again = typeof it === 'function' && !asked;
    if (again) token = await it();
    return asked = again;
  };

  // Brings one listener from `from` to where its channel is; what comes meanwhile waits.
  const catchUp = async (channel, f, own, from) => {
    if (own.held) return;
    own.held = [];
    await started;
    for (let tries = 1; !closed && !own.gone; tries++) {
      try {
        const {cursor, messages, reset, presence} = await poll(undefined, [channel], from, 0, own.more);
        asked = false;
        if (presence) call(f, presence);
        if (reset) lost(channel);
        for (const message of messages) give(f, own, message, reset);
        own.at = from = placeIn(cursor, channel);
        const place = places.get(channel);
        if (!place) places.set(channel, from);
        // Another gate may be a moment behind.
        if (!place || has(from, place) || tries > 4) break;
      } catch ({status, after}) {
        const denied = status === 401 && !await ask().catch(() => true);
        if (denied || status > 401 && status < 429) { lost(channel); break; }
        await pause(tries, after);
      }
    }
    const {held} = own;
    own.held = null;
    for (const message of held) give(f, own, message);
    update();
  };

  // Each transport hands answers to `hear` and ends with the time until the next connection, or
  // with an error: {status, after}, or {next} if another transport may do better.
  const transports = {
    ws: (signal, hear) => new Promise((done, fail) => {
      const query = {cursor: cursor(channels), ...token && {token}};
      const address = new URL(url(channels, query), location).href.replace('http', 'ws');
      const socket = new WebSocket(address, 'pollgate.v1');
      signal.addEventListener('abort', () => socket.close());
      socket.onmessage = ({data}) => hear(JSON.parse(data));
      socket.onclose = ({code}) =>
        code === 1000 || code === 1001 ? done() : fail({status: {1008: 401, 1013: 503}[code]});
    }),
    sse: async (signal, hear) => {
      const answer = await get(signal, channels, {cursor: cursor(channels)}, 'text/event-stream');
      if (!/event-stream/.test(answer.headers.get('Content-Type'))) throw {next: true};
      const reader = answer.body.getReader(), decoder = new TextDecoder();
      let buffer = '', retry, alive;
      for (;;) {
        const {done, value} = await reader.read();
        if (done && !alive) throw {status: 503, after: retry};
        if (done) return retry;
        heard = now();
        const blocks = (buffer + decoder.decode(value, {stream: true})).split('\n\n');
        buffer = blocks.pop();
        for (const block of blocks) {
          const fields = {};
          for (const line of block.split('\n')) {
            const colon = line.indexOf(':');
            fields[line.slice(0, colon)] = line.slice(colon + 2);
          }
          const {id, data, event} = fields, reset = event === 'reset';
          retry = +fields.retry || retry;
          if (!id) continue;
          alive = true;
          hear({cursor: id, reset, messages: reset || !data ? [] : [JSON.parse(data)]});
        }
      }
    },
    poll: async (signal, hear) => {
      for (let timeout = 0; !signal.aborted; timeout = beat / 800) {
        const began = now(), answer = await poll(signal, channels, cursor(channels), timeout);
        hear(answer);
        // A gate that drains answers at once.
        if (timeout && !answer.messages.length && now() - began < 500) await sleep(500 + 1000 * random());
      }
    },
  };

  // The channels of this tab and its followers, but for those whose beginning is being asked for.
  const wanted = () => [...new Set([
    ...[...listeners].filter(([name, of]) => places.get(name) || [...of.values()].every((own) => !own.held)).map(([name]) => name),
    ...[...others.values()].flat(),
  ])].sort();

  // Keeps one connection up while this tab leads.
  const run = async (left) => {
    const first = () => Math.max(0, order.indexOf(store('')));
    let current = first();
    while (!left.aborted) {
      channels = wanted();
      if (!channels.length) { await new Promise((done) => { idle = done; }); continue; }
      const control = new AbortController(), {signal} = control, name = order[current];
      let opened, error, tick = heard = now(), fail;
      const ending = new Promise((done, no) => { end = done; fail = no; });
      const hear = (answer) => {
        if (signal.aborted) return;
        heard = now();
        if (!opened) {
          opened = true;
          attempt = 0;
          asked = false;
          store('', name);
          change('open', name);
        }
        say(answer);
        deliver(answer);
      };
      // Polls are given the time that they need.
      const late = setTimeout(() => opened || name === 'poll' || fail({next: true}), 3000);
      const watch = setInterval(() => {
        // A machine that slept says nothing about its connection.
        if (now() - heard > 2.5 * beat) now() - tick > beat + 5000 ? end('again') : fail({next: true});
        tick = now();
      }, beat / 2);
      if (client.state !== 'open') change('connecting');
      let result;
      try { result = await Promise.race([transports[name](signal, hear), ending]); } catch (e) { error = e; }
      clearTimeout(late);
      clearInterval(watch);
      control.abort();
      if (left.aborted) return;
      if (!error) {
        if (result !== 'again') await sleep(result || 1000 * random());
        continue;
      }
      const {status, after, next} = error;
      if (status === 401) {
        try {
          if (!await ask()) return client.close();
          current = first();
          continue;
        } catch {}
      }
      if ([400, 403, 404, 410].includes(status)) return client.close();
      // One that has worked before is given up only after some tries.
      if (next || status === 406 || !opened && !status && (store('') !== name || attempt > 1)) {
        current = (current + 1) % order.length;
        if (current) continue;
      } else current = first();
      change('offline');
      await pause(++attempt, after);
    }
  };

  // From the leading tab to the others: its places before `answer`, and its state.
  const say = (answer) => {
    if (tabs && lead && !closed) tabs.postMessage({at: Object.fromEntries(places), state: client.state, transport: client.transport, answer});
  };
  // From a following tab to the leading one: its channels and places.
  const tell = () => {
    if (tabs && !lead) tabs.postMessage({from: me, want: Object.fromEntries(wanted().map((name) => [name, places.get(name)]))});
  };
  const follow = ({at, state, transport, answer}) => {
    unanswered = 0;
    for (const [channel, of] of listeners) {
      const theirs = at[channel], place = places.get(channel);
      if (!theirs || has(place, theirs)) continue;
      places.set(channel, theirs);
      if (place) for (const [f, own] of of) catchUp(channel, f, own, own.at || place);
    }
    if (answer) deliver(answer);
    change(state, transport);
  };
  const onmessage = ({data}) => {
    if (!lead) {
      if (data.at) follow(data);
      if (data.hello) tell();
    } else if (data.from) {
      const names = Object.keys(data.want);
      others.set(data.from, names);
      for (const name of names) if (!places.get(name) && data.want[name]) places.set(name, data.want[name]);
      update();
      say();
    }
  };
  // A leading tab that no longer answers was put to sleep.
  const timer = setInterval(() => {
    tell();
    if (tabs && !lead && unanswered++ > 2) request({steal: true});
  }, beat);

  const request = (how) => {
    const {signal} = stop;
    unanswered = 0;
    navigator.locks.request(tabs.name, how, () => {
      if (signal.aborted || lead) return;
      lead = true;
      tabs.postMessage({hello: true});
      return run(signal);
    }).catch(() => {
      // Another tab has taken the lead.
      if (lead && !signal.aborted) { leave(); join(); }
    });
  };
  const join = () => {
    if (closed || stop && !stop.signal.aborted) return;
    stop = new AbortController();
    const {signal} = stop;
    if (options.share === false || !navigator.locks || !self.BroadcastChannel) {
      lead = true;
      return run(signal);
    }
    // Other tokens may open other channels.
    tabs = new BroadcastChannel(key + '#' + tag(token || ''));
    tabs.onmessage = onmessage;
    tell();
    request({signal});
  };
  const leave = () => {
    if (!stop) return;
    if (tabs && !lead) tabs.postMessage({from: me, want: {}});
    stop.abort();
    end('again');
    wake();
    idle();
    if (tabs) tabs.close();
    tabs = lead = null;
    others.clear();
  };

  // Collects what changes in one turn of the page.
  const update = () => {
    clearTimeout(soon);
    soon = setTimeout(() => {
      const names = wanted();
      for (const name of places.keys()) if (!names.includes(name) && !listeners.has(name)) places.delete(name);
      if (!lead) return tell();
      idle();
      if (names.join('\n') !== channels.join('\n')) end('again');
    });
  };

  const trust = (event) => {
    join();
    tell();
    if (event.type === 'online' || client.state !== 'open' || now() - heard > beat) {
      wake();
      if (lead) end('again');
    }
  };
  const events = {
    visibilitychange: (event) => document.hidden || trust(event),
    pageshow: trust,
    online: trust,
    offline: () => change('offline'),
    // A page that is kept for the way back holds neither a connection nor the lead.
    pagehide: leave,
  };
  // Events of the document bubble to the window.
  for (const name in events) addEventListener(name, events[name], life);

  client.on = (channel, f, {from, more} = {}) => {
    if (channel === 'reset') resets.add(f);
    else {
      client.off(channel, f, true);
      if (!listeners.has(channel)) listeners.set(channel, new Map());
      const kept = places.get(channel) || store(':' + channel);
      if (kept) places.set(channel, kept);
      const own = {at: from ? '' : kept, more};
      listeners.get(channel).set(f, own);
      if (from) catchUp(channel, f, own, placeIn(from, channel) || '');
      update();
    }
    return client;
  };
  // Calls `f` with the users on a channel: now, and whenever one comes or goes. A gap is filled by
  // the list.
  client.presence = (channel, f) => {
    const name = 'presence:' + channel;
    let users = [];
    const heed = ({members, type, user, info}) => {
      users = members || users.filter((one) => one.user !== user);
      if (type === 'join') users.push({user, info});
      call(f, users);
    };
    const load = (of) => of === name && client.on(name, heed, {from: '.', more: {presence: 1}});
    load(name);
    return client.on('reset', load);
  };
  client.off = (channel, f, keep) => {
    const of = listeners.get(channel);
    if (channel === 'reset') resets.delete(f);
    else if (of && of.has(f)) {
      of.get(f).gone = true;
      of.delete(f);
      if (!of.size && !keep) { listeners.delete(channel); store(':' + channel, ''); }
      update();
    }
    return client;
  };
  client.close = () => {
    if (closed) return;
    closed = true;
    leave();
    clearInterval(timer);
    life.abort();
    change('closed');
  };

  (async () => {
    for (let tries = 1; !closed; tries++) {
      try { await ask(); break; } catch { change('offline'); await pause(tries); }
    }
    asked = false;
    ready();
    join();
  })();
  return client;
}
