// pollgate's JavaScript client. https://github.com/pollgate/pollgate  Apache-2.0
//
// const c = pollgate('/comet', {token, transports});
// c.on('news', (data, meta) => ...); c.on('news', f, {from: 'oldest'}); c.on('reset', f);
// c.state; c.transport; c.close();
//
// One connection carries all channels, and tabs with equal tokens share it. A native cursor is a
// list of `tag.position` joined by `~`; the client merges those of its answers.
function pollgate(base = '/comet', options = {}) {
  const heartbeat = (options.heartbeat || 20) * 1000;
  const order = options.transports || ['ws', 'sse', 'poll'];
  const listeners = new Map(); // channel -> Map(listener -> its `from`)
  const resets = new Set();
  const positions = new Map(); // tag -> entry of a cursor
  const others = new Map(); // a following tab -> its channels
  const me = Math.random().toString(36).slice(2);
  const key = 'pollgate:' + base;
  const client = {state: 'connecting', transport: null};
  let token, asked = false, attempt = 0, abort = null, wake = null, lead = null, tabs = null;
  let heard = 0, scheduled = false, closed = false, channels = '', current = 0, hidden = false;

  const now = () => Date.now();
  const store = (name, value) => {
    try {
      if (value === undefined) return sessionStorage.getItem(key + name);
      sessionStorage.setItem(key + name, value);
    } catch { /* no storage: the cursor ends with the page */ }
  };
  const cursor = () => [...positions.values()].join('~');
  const merge = (text) => {
    for (const entry of text ? text.split('~') : []) {
      if (entry.includes('.')) positions.set(entry.split('.')[0], entry);
    }
    store('', cursor());
  };
  const change = (state, transport = client.transport) => {
    if (client.state === state && client.transport === transport) return;
    Object.assign(client, {state, transport});
    if (options.onstate) options.onstate(state, transport);
  };
  const call = (f, ...args) => {
    try { f(...args); } catch (error) { setTimeout(() => { throw error; }); }
  };

  // Hands an answer to this tab's listeners, and from the leading tab to the others.
  const deliver = (answer, shared) => {
    heard = now();
    merge(answer.cursor);
    if (tabs && !shared) tabs.postMessage({answer});
    if (answer.reset) resets.forEach((f) => call(f, answer.channel));
    for (const message of answer.messages || []) {
      const {channel, id, stamp, base64} = message;
      const data = base64 === undefined ? message.data : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
      const meta = {channel, id, stamp, cursor: answer.cursor, reset: !!answer.reset};
      for (const f of [...(listeners.get(channel) || new Map()).keys()]) call(f, data, meta);
    }
  };

  const url = (names, more) => {
    const query = new URLSearchParams(more);
    if (token) query.set('token', token);
    return base + '/' + names.split(',').map(encodeURIComponent).join(',') + '?' + query;
  };
  // The answer to a request that did not succeed, as an error.
  const refused = (response) => Object.assign(new Error('status ' + response.status), {
    status: response.status,
    after: 1000 * parseFloat(response.headers.get('Retry-After') || 0),
  });
  const get = async (signal, names, query, accept) => {
    const headers = {Accept: accept};
    if (token) headers.Authorization = 'Bearer ' + token;
    const bare = url(names, query).replace(/&?token=[^&]*/, '');
    const response = await fetch(bare, {headers, signal, cache: 'no-store', credentials: 'same-origin'});
    if (!response.ok) throw refused(response);
    return response;
  };
  const pollOnce = async (signal, names, query) =>
    (await get(signal, names, query, 'application/json')).json();

  // Each transport calls `open` once something came, and ends by an error or in peace.
  const transportOf = {
    ws: (signal, open) => new Promise((resolve, reject) => {
      const socket = new WebSocket(
        new URL(url(channels, {cursor: cursor()}), location.href).href.replace(/^http/, 'ws'), 'pollgate.v1');
      // Pings are not seen from here: after two heartbeats of silence a poll asks what there is.
      const watch = setInterval(async () => {
        if (now() - heard < 2 * heartbeat) return;
        const seen = cursor();
        try {
          const answer = await pollOnce(signal, channels, {cursor: seen, timeout: 0});
          if (answer.messages.length && seen === cursor()) throw new Error('silent');
          heard = now();
        } catch (error) { reject(Object.assign(error, {next: true})); socket.close(); }
      }, heartbeat / 2);
      const end = () => { clearInterval(watch); socket.close(); resolve(); };
      signal.addEventListener('abort', end);
      socket.onmessage = (event) => { open(); deliver(JSON.parse(event.data)); };
      socket.onclose = (event) => {
        clearInterval(watch);
        if (event.code === 1008) reject(Object.assign(new Error('denied'), {status: 401}));
        else resolve();
      };
    }),
    sse: async (signal, open) => {
      const response = await get(signal, channels, {cursor: cursor()}, 'text/event-stream');
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = '', event = {}, retry = 0, events = 0;
      for (;;) {
        let silent;
        const quiet = new Promise((_, reject) => {
          silent = setTimeout(() => reject(Object.assign(new Error('silent'), {next: true})), 2 * heartbeat);
        });
        const read = await Promise.race([reader.read(), quiet]).finally(() => clearTimeout(silent));
        if (read.done) {
          if (!events && retry) throw Object.assign(new Error('busy'), {after: retry});
          return;
        }
        heard = now();
        const lines = (buffer + read.value).split(/\r\n|\n|\r/);
        buffer = lines.pop();
        for (const line of lines) {
          if (line) {
            const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
            if (name === 'retry') retry = +value;
            else if (name) event[name] = name === 'data' && event.data !== undefined ? event.data + '\n' + value : value;
            continue;
          }
          const {id, data} = event, type = event.event;
          event = {};
          if (data === undefined) continue;
          events++;
          open();
          if (type === 'reset') deliver({cursor: id, reset: true, channel: JSON.parse(data).channel});
          else deliver({cursor: id, messages: data ? [JSON.parse(data)] : []});
        }
      }
    },
    poll: async (signal, open) => {
      for (let first = true; !signal.aborted; first = false) {
        const query = first ? {cursor: cursor(), timeout: 0} : {cursor: cursor()};
        const answer = await pollOnce(signal, channels, query);
        open();
        if (!signal.aborted) deliver(answer);
      }
    },
  };

  const wanted = () => [...new Set([...listeners.keys(), ...[...others.values()].flat()])].sort().join(',');
  const sleep = (time) => new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    wake = () => { clearTimeout(timer); resolve(); };
  });

  // Asks for a token at the first connection and once after each 401.
  const askToken = async () => {
    asked = true;
    token = typeof options.token === 'function' ? await options.token() : options.token;
  };

  // Keeps one connection up while this tab leads.
  const run = async () => {
    current = Math.max(0, order.indexOf(store(':transport')));
    while (!closed) {
      channels = wanted();
      if (!channels || hidden) { await sleep(3e8); continue; }
      const controller = new AbortController();
      const {signal} = controller;
      abort = () => controller.abort();
      const name = order[current % order.length];
      let opened = false, error = null;
      change(client.state === 'open' ? 'open' : 'connecting', name);
      const late = setTimeout(() => { if (!opened) controller.abort(); }, 3000);
      const open = () => {
        if (opened) return;
        clearTimeout(late);
        opened = true; attempt = 0; asked = false;
        store(':transport', name);
        change('open', name);
      };
      try {
        for (const [channel, from] of starts()) {
          merge(from === 'oldest' ? '' : from);
          if (from === 'oldest') deliver(await pollOnce(signal, channel, {cursor: from, timeout: 0}));
        }
        heard = now();
        await transportOf[name](signal, open);
      } catch (e) { error = e; }
      clearTimeout(late);
      controller.abort();
      if (closed) return;
      if (wanted() !== channels || hidden) continue;
      const status = error && error.status;
      if (status === 401) {
        if (typeof options.token !== 'function' || asked) return client.close();
        await askToken();
        continue;
      }
      if (status === 400 || status === 403 || status === 404) return client.close();
      // Nothing came in time, or it was refused: the next transport, and after the last a pause.
      if ((!opened && !status) || status === 406 || (error && error.next)) {
        current = (current + 1) % order.length;
        if (current) continue;
      }
      if (opened && !error) { await sleep(500 * Math.random()); continue; }
      change('offline', null);
      const most = Math.min(20000, 1000 * 2 ** attempt++);
      const pause = 500 + Math.random() * (most - 500);
      await sleep(Math.max(pause, (error && error.after || 0) * (1 + Math.random() / 5)));
      if (!closed) change('connecting', null);
    }
  };

  // The places to start at that were asked for and not yet used.
  const starts = () => {
    const found = [];
    for (const [channel, of] of listeners) {
      for (const [f, from] of of) {
        if (from) { found.push([channel, from]); of.set(f, null); }
      }
    }
    return found;
  };

  const again = () => { if (wake) wake(); if (abort) abort(); };
  const update = () => {
    if (scheduled) return;
    scheduled = true;
    setTimeout(() => {
      scheduled = false;
      if (closed) return;
      if (lead) { if (wanted() !== channels || [...listeners.values()].some((of) => [...of.values()].some(Boolean))) again(); }
      else if (tabs) tabs.postMessage({from: me, channels: [...listeners.keys()]});
    });
  };

  const start = async () => {
    await askToken();
    asked = false;
    merge(store('') || '');
    const locks = typeof navigator !== 'undefined' && navigator.locks;
    if (!locks || typeof BroadcastChannel === 'undefined' || options.share === false) {
      lead = true;
      return run();
    }
    // Tabs with other tokens may see other channels: the name is of the token's hash.
    let hash = 5381;
    for (const c of token || '') hash = (hash * 33 ^ c.charCodeAt(0)) >>> 0;
    const name = key + '#' + hash;
    tabs = new BroadcastChannel(name);
    tabs.onmessage = ({data}) => {
      if (data.answer && !lead) { change('open', 'shared'); deliver(data.answer, true); }
      if (data.hello && !lead) tabs.postMessage({from: me, channels: [...listeners.keys()]});
      if (data.from && lead) { others.set(data.from, data.channels); update(); }
    };
    update();
    locks.request(name, () => {
      if (closed) return;
      lead = true;
      tabs.postMessage({hello: true});
      return run();
    });
  };

  const trust = () => {
    hidden = false;
    if (client.state !== 'open' || now() - heard > heartbeat) again();
  };
  const events = [
    ['visibilitychange', () => document.visibilityState === 'visible' && trust()],
    ['pageshow', trust],
    ['online', trust],
    ['offline', () => change('offline')],
    // A page with an open connection is not kept for the way back.
    ['pagehide', () => { hidden = true; again(); }],
  ];
  const target = typeof window === 'undefined' ? null : window;
  if (target) events.forEach(([name, f]) => (name[0] === 'v' ? document : target).addEventListener(name, f));

  client.on = (channel, f, {from} = {}) => {
    if (channel === 'reset') { resets.add(f); return client; }
    if (!listeners.has(channel)) listeners.set(channel, new Map());
    listeners.get(channel).set(f, from || null);
    update();
    return client;
  };
  client.off = (channel, f) => {
    if (channel === 'reset') { resets.delete(f); return client; }
    const of = listeners.get(channel);
    if (of && of.delete(f) && !of.size) listeners.delete(channel);
    update();
    return client;
  };
  client.close = () => {
    if (closed) return;
    closed = true;
    if (tabs) { tabs.postMessage({from: me, channels: []}); tabs.close(); }
    if (target) events.forEach(([name, f]) => (name[0] === 'v' ? document : target).removeEventListener(name, f));
    again();
    change('closed', null);
  };
  start();
  return client;
}
