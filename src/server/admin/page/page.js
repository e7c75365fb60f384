"use strict";
// Shows the gate's stats as they come. Everything from outside is put into the page as text.
(() => {
  const SECONDS = 120, MESSAGES = 20, USERS = 50, LONGEST = 4000;
  const page = document.querySelector('meta[name="pollgate-page"]').content;
  const at = (id) => document.getElementById(id);
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

  // State: stats of the last minutes, and the channel that is shown.
  let samples = [], newest = null, cursor = "oldest";
  let shown = null, shownCursor = "", looking = false;

  const store = {
    get token() { try { return sessionStorage.getItem("pollgate-token"); } catch { return this.kept; } },
    set token(token) {
      this.kept = token;
      try {
        if (token) sessionStorage.setItem("pollgate-token", token);
        else sessionStorage.removeItem("pollgate-token");
      } catch { /* Without storage it lasts as long as the page. */ }
    },
    kept: null,
  };

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Requests.

  async function ask(method, path, body, type) {
    const headers = { "Pollgate-Page": page };
    const token = store.token;
    if (token) headers.Authorization = "Bearer " + token;
    if (type) headers["Content-Type"] = type;
    const options = { method, headers, body, cache: "no-store", credentials: "omit" };
    // Notices a gate that vanished without closing the connection, too.
    if (AbortSignal.timeout) options.signal = AbortSignal.timeout(20000);
    return fetch(path, options);
  }

  async function reason(response) {
    const text = await response.text();
    try {
      const said = JSON.parse(text);
      return said.hint ? said.error + "; " + said.hint : said.error;
    } catch {
      return "the gate answered " + response.status;
    }
  }

  // The stats.

  async function watch() {
    for (let wait = 0; ;) {
      if (document.hidden) await visible();
      try {
        const response = await ask("GET", "/page/figures?cursor=" + encodeURIComponent(cursor));
        if (response.status === 401) { await askForToken(await reason(response)); continue; }
        if (!response.ok) throw new Error(await reason(response));
        const answer = await response.json();
        at("login").hidden = true;
        cursor = answer.cursor;
        if (answer.reset) samples = [];
        answer.messages.forEach((message) => take(message.data));
        if (newest) draw();
        wait = 0;
        // Nothing came: no need to hurry.
        if (!answer.messages.length) await sleep(500);
      } catch (error) {
        wait = Math.min(10000, wait * 2 || 500);
        lost(error);
        await sleep(wait);
      }
    }
  }

  function visible() {
    return new Promise((done) => {
      const look = () => {
        if (document.hidden) return;
        document.removeEventListener("visibilitychange", look);
        done();
      };
      document.addEventListener("visibilitychange", look);
    });
  }

  function lost(error) {
    const words = error instanceof TypeError || error.name === "TimeoutError"
      ? "no answer; trying again" : error.message;
    state("bad", words);
    at("figures").classList.add("lost");
  }

  function state(kind, words) {
    const shown = at("state");
    if (shown.textContent !== words) shown.textContent = words;
    shown.className = "state " + kind;
  }

  function askForToken(words) {
    const [login, field] = [at("login"), at("token")];
    at("login-error").textContent = store.token ? words : "";
    store.token = null;
    at("figures").hidden = true;
    login.hidden = false;
    state("warn", "locked");
    field.value = "";
    field.focus();
    return new Promise((done) => {
      login.onsubmit = (event) => {
        event.preventDefault();
        const token = field.value.trim();
        if (!/^[!-~]+$/.test(token)) {
          at("login-error").textContent = "a token is visible ASCII without spaces";
          return;
        }
        store.token = token;
        field.value = "";
        done();
      };
    });
  }

  function take(figures) {
    if (newest && newest.pid !== figures.pid) {
      // Another process has another page token.
      location.reload();
      return;
    }
    const sample = { time: figures.time, held: figures.held, refusals: figures.refusals };
    const passed = newest ? figures.time - newest.time : 0;
    if (passed > 0) {
      sample.publishes = (figures.publishes - newest.publishes) / passed;
      sample.deliveries = (figures.deliveries - newest.deliveries) / passed;
      rate(figures, passed);
    }
    newest = figures;
    samples.push(sample);
    samples = samples.filter((old) => old.time > figures.time - SECONDS - 2);
  }

  // Rate of each of the busiest channels, if it was among them before.
  function rate(figures, passed) {
    const before = new Map(newest.busiest.map((busy) => [busy.channel, busy]));
    for (const busy of figures.busiest) {
      const old = before.get(busy.channel);
      if (old && old.epoch === busy.epoch) busy.rate = (busy.messages - old.messages) / passed;
    }
  }

  function draw() {
    at("figures").hidden = false;
    at("figures").classList.remove("lost");
    at("forget").hidden = !store.token;
    if (newest.unready.length) state("warn", newest.unready.join("; "));
    else state("good", "ready");
    at("version").textContent = newest.version;
    at("about").textContent = "up " + duration(newest.uptime) + ", config generation " + newest.generation;
    document.title = count(newest.held) + " held \u2013 pollgate";
    document.querySelectorAll("[data-figure]").forEach((figure) => plot(figure));
    facts();
    busiest();
    refused();
    events();
  }

  // Plots.

  const SVG = "http://www.w3.org/2000/svg";

  function plot(figure) {
    const name = figure.dataset.figure, svg = figure.querySelector("svg");
    const points = samples.filter((sample) => sample[name] !== undefined);
    const last = points.length ? points[points.length - 1][name] : undefined;
    const now = last === undefined ? "\u2013" : count(last);
    figure.querySelector(".now").textContent = now;
    const top = ceiling(Math.max(1, ...points.map((sample) => sample[name])));
    figure.querySelector(".top").textContent = count(top);
    svg.querySelector("title").textContent =
      figure.querySelector("figcaption").textContent + ": " + now + " now, at most "
      + count(Math.max(0, ...points.map((sample) => sample[name]))) + " in the last two minutes";
    const x = (time) => (240 * (1 - (newest.time - time) / SECONDS)).toFixed(1);
    const y = (value) => (70 - 66 * (value / top)).toFixed(1);
    let curve = "", area = "", before = null, start = null;
    for (const sample of points) {
      // No stats while no page was open.
      const joined = before && sample.time - before.time < 4;
      if (!joined && before) area += `L${x(before.time)} 72L${x(start.time)} 72Z`;
      if (!joined) start = sample;
      const point = `${joined ? "L" : "M"}${x(sample.time)} ${y(sample[name])}`;
      curve += point;
      area += point;
      before = sample;
    }
    if (before) area += `L${x(before.time)} 72L${x(start.time)} 72Z`;
    draft(svg, "line", "grid", { x1: 0, x2: 240, y1: 4, y2: 4 });
    draft(svg, "path", "area", { d: area });
    draft(svg, "path", "curve", { d: curve });
  }

  function draft(svg, kind, className, attributes) {
    let part = svg.querySelector("." + className);
    if (!part) {
      part = document.createElementNS(SVG, kind);
      part.setAttribute("class", className);
      svg.append(part);
    }
    for (const [name, value] of Object.entries(attributes)) part.setAttribute(name, value);
  }

  // The next round number: 1, 2 or 5 with zeros.
  function ceiling(value) {
    const step = 10 ** Math.floor(Math.log10(value));
    return [1, 2, 5, 10].map((times) => times * step).find((round) => round >= value);
  }

  // Numbers for people.

  const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

  function count(value) {
    if (value >= 1e6) return fine.format(value / 1e6) + " M";
    return (value < 10 && value % 1 ? fine : whole).format(value);
  }

  function size(bytes) {
    if (bytes === null || bytes === undefined) return "\u2013";
    const units = ["B", "KiB", "MiB", "GiB"];
    let unit = 0;
    for (; bytes >= 1024 && unit < units.length - 1; unit++) bytes /= 1024;
    return (bytes < 10 && unit ? fine : whole).format(bytes) + " " + units[unit];
  }

  function duration(seconds) {
    const [days, hours, minutes] = [seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60];
    if (days >= 1) return Math.floor(days) + " d " + Math.floor(hours) + " h";
    if (hours >= 1) return Math.floor(hours) + " h " + Math.floor(minutes) + " min";
    if (minutes >= 1) return Math.floor(minutes) + " min " + seconds % 60 + " s";
    return seconds + " s";
  }

  const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
  const sum = (counts) => Object.values(counts).reduce((all, one) => all + one, 0);

  // Facts, channels, refusals, events.

  function facts() {
    const failed = (newest.upstream["5xx"] || 0) + (newest.upstream.none || 0);
    const list = [
      ["Streams", count(sum(newest.streams))],
      ["Connections", count(newest.connections)],
      ["Channels", count(newest.channels)],
      ["History", size(newest.history_bytes)],
      ["Memory", size(newest.memory)],
      ["Open files", newest.open_fds === null ? "\u2013" : count(newest.open_fds) + " of " + count(newest.max_fds)],
      ["Publishes", count(newest.publishes)],
      ["Deliveries", count(newest.deliveries)],
      ["Site requests", count(sum(newest.upstream)) + (failed ? ", " + count(failed) + " failed" : "")],
    ];
    if (newest.restart.length) list.push(["Takes a restart", newest.restart.join(", ")]);
    const place = at("facts");
    while (place.children.length > list.length) place.lastChild.remove();
    list.forEach(([name, value], index) => {
      let fact = place.children[index];
      if (!fact) {
        fact = element("div");
        fact.append(element("dt"), element("dd"));
        place.append(fact);
      }
      fact.firstChild.textContent = name;
      fact.lastChild.textContent = value;
    });
  }

  function busiest() {
    const body = at("busiest");
    at("no-channels").hidden = newest.busiest.length > 0;
    while (body.children.length > newest.busiest.length) body.lastChild.remove();
    newest.busiest.forEach((busy, index) => {
      let row = body.children[index];
      if (!row) {
        row = element("tr");
        const name = element("td"), button = element("button", "", "link");
        button.type = "button";
        button.onclick = () => show(button.textContent);
        name.append(button);
        row.append(name, element("td", "", "number"), element("td", "", "number"),
          element("td", "", "number wide"), element("td", "", "number wide"));
        body.append(row);
      }
      const [name, held, rate, kept, bytes] = row.children;
      name.firstChild.textContent = busy.channel;
      name.firstChild.setAttribute("aria-current", String(busy.channel === shown));
      held.textContent = count(busy.held);
      rate.textContent = busy.rate === undefined ? "\u2013" : count(busy.rate);
      kept.textContent = count(busy.kept);
      bytes.textContent = size(busy.bytes);
    });
    const names = at("names"), known = newest.busiest.map((busy) => busy.channel);
    const before = Array.from(names.children, (option) => option.value);
    if (known.join("\n") !== before.join("\n")) {
      names.replaceChildren(...known.map((name) => {
        const option = element("option");
        option.value = name;
        return option;
      }));
    }
  }

  function refused() {
    const first = samples[0].refusals;
    const causes = Object.entries(newest.refusals).filter(([, all]) => all > 0);
    const recent = ([cause, all]) => all - (first[cause] || 0);
    causes.sort((a, b) => recent(b) - recent(a) || b[1] - a[1]);
    at("refusals").hidden = !causes.length;
    at("none-refused").hidden = causes.length > 0;
    at("refused").replaceChildren(...causes.map((entry) => {
      const row = element("tr");
      row.append(element("td", entry[0].replaceAll("_", " ")),
        element("td", count(recent(entry)), "number"), element("td", count(entry[1]), "number"));
      return row;
    }));
  }

  let told = "";

  function events() {
    const list = newest.events.slice().reverse();
    at("no-events").hidden = list.length > 0;
    const state = JSON.stringify(list[0]) + list.length;
    if (state === told) return;
    told = state;
    at("events").replaceChildren(...list.map((event) => {
      const item = element("li", undefined, event.level), time = element("time", clock(event.time));
      time.dateTime = new Date(event.time * 1000).toISOString();
      item.append(time, element("span", event.level, "level"), event.text);
      return item;
    }));
  }

  // One channel: what is on it, and a message for it.

  function show(channel) {
    shown = channel;
    shownCursor = "";
    at("name").value = channel;
    at("publish-to").textContent = channel;
    at("messages").replaceChildren();
    at("members").hidden = true;
    if (newest) busiest();
    look();
  }

  async function look() {
    if (!shown || looking || document.hidden || at("figures").hidden) return;
    looking = true;
    const channel = shown;
    try {
      const path = "/channels/" + encodeURIComponent(channel) + "/messages?cursor=" + encodeURIComponent(shownCursor);
      const response = await ask("GET", path);
      // Another channel may have been chosen meanwhile.
      if (shown !== channel) return;
      if (response.status === 404) {
        at("messages").replaceChildren();
        shownCursor = "";
        told404();
      } else if (!response.ok) {
        tell(at("channel-state"), await reason(response), true);
      } else {
        const answer = await response.json();
        if (shown === channel) list(answer);
      }
      await users(channel);
    } catch { /* That the gate does not answer is told above. */ } finally {
      looking = false;
      if (shown !== channel) look();
    }
  }

  // The users on a channel, if it has presence.
  async function users(channel) {
    const place = at("members");
    const response = await ask("GET", "/channels/" + encodeURIComponent(channel) + "/presence");
    if (shown !== channel) return;
    place.hidden = !response.ok;
    if (!response.ok) return;
    const list = await response.json();
    if (shown !== channel) return;
    const names = list.members.slice(0, USERS).map((one) => one.user);
    if (list.count > names.length) names.push("\u2026");
    place.textContent = count(list.count) + (list.count === 1 ? " user on " : " users on ")
      + count(list.connections) + (list.connections === 1 ? " connection" : " connections")
      + (names.length ? ": " + names.join(", ") : "");
  }

  const told404 = () => tell(at("channel-state"), "There is no such channel; a message creates it.");

  function list(answer) {
    const place = at("messages");
    if (answer.reset) place.replaceChildren();
    shownCursor = answer.cursor;
    for (const message of answer.messages.slice(-MESSAGES)) {
      const item = element("li");
      item.append(element("p", clock(Number(message.stamp)) + "  " + message.id, "meta"), element("pre", words(message)));
      place.prepend(item);
    }
    while (place.children.length > MESSAGES) place.lastChild.remove();
    const none = place.children.length === 0;
    tell(at("channel-state"), none ? "Nothing is kept on this channel." : "The newest messages:");
  }

  function words(message) {
    if (message.base64 !== undefined) return "bytes, in base64: " + cut(message.base64);
    if (message.data === "") return "(empty)";
    return cut(typeof message.data === "string" ? message.data : JSON.stringify(message.data, null, 1));
  }

  const cut = (text) => text.length > LONGEST ? text.slice(0, LONGEST) + "\u2026" : text;

  function tell(place, words, failed) {
    if (place.textContent !== words) place.textContent = words;
    place.classList.toggle("failed", Boolean(failed));
  }

  async function publish(event) {
    event.preventDefault();
    const place = at("published");
    const channel = at("name").value;
    if (!channel) { tell(place, "Name a channel first.", true); at("name").focus(); return; }
    if (channel !== shown) show(channel);
    tell(place, "\u2026");
    try {
      const path = "/channels/" + encodeURIComponent(channel);
      const response = await ask("POST", path, at("data").value, at("kind").value);
      if (!response.ok) { tell(place, "Not published: " + await reason(response), true); return; }
      const done = await response.json();
      const polls = done.released === 1 ? "1 poll" : count(done.released) + " polls";
      tell(place, "Published as " + done.id + "; it released " + polls + ".");
      at("data").value = "";
      look();
    } catch (error) {
      const words = error instanceof URIError ? "the channel's name is no text" : "no answer";
      tell(place, "Not published: " + words, true);
    }
  }

  at("look").onsubmit = (event) => { event.preventDefault(); show(at("name").value); };
  at("publish").onsubmit = publish;
  at("data").onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("publish").requestSubmit();
  };
  at("forget").onclick = () => { store.token = null; location.reload(); };
  setInterval(look, 1000);
  watch();
})();
